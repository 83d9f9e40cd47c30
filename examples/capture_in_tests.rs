//! How a test looks at the messages a program sends: a [`Capture`] in place of a router.
//!
//! `cargo run --example capture_in_tests` prints them, and the test below is run by
//! `cargo test --example capture_in_tests`.

use std::time::Duration;

use tracing::{info, instrument, warn};
use tracing_metlog::{Capture, Message};
use tracing_subscriber::layer::SubscriberExt;

/// The code under test. It knows nothing of Metlog.
#[instrument(skip(basket))]
fn check_out(user: &str, basket: &[u32]) -> Result<u32, &'static str> {
    if basket.is_empty() {
        warn!("empty basket");
        return Err("nothing to pay");
    }
    let total = basket.iter().sum::<u32>();
    info!(monotonic_counter.orders = 1, items = basket.len(), total, "ordered");
    Ok(total)
}

/// Everything that `work` sends, in order. Tests run side by side: each has a subscriber for its own thread.
fn messages_of(work: impl FnOnce()) -> Vec<Message> {
    let capture = Capture::new();
    let (layer, guard) =
        tracing_metlog::builder().logger("shop").transport(capture.clone()).build().expect("a layer");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let flushed = guard.flush(Duration::from_secs(5));
    assert_eq!(flushed.pending, 0, "all is there before it is looked at");
    capture.take()
}

fn main() {
    let messages = messages_of(|| {
        let _ = check_out("amy", &[3, 4]);
        let _ = check_out("bob", &[]);
    });
    for message in messages {
        println!("{:8} {:10} {}", message.r#type, message.severity, message.payload);
        println!("         {}", serde_json::Value::from(message.fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_metlog::Severity;

    #[test]
    fn an_order_is_counted_and_logged_and_timed() {
        let messages = messages_of(|| assert_eq!(check_out("amy", &[3, 4]), Ok(7)));

        let types: Vec<_> = messages.iter().map(|message| message.r#type.as_str()).collect();
        assert_eq!(types, ["counter", "oldstyle", "timer"]);
        let [counter, line, timer] = &messages[..] else { panic!("three messages") };
        assert_eq!((&counter.payload, &counter.fields["name"]), (&"1".into(), &"orders".into()));
        assert_eq!(line.payload, "ordered");
        assert_eq!(line.fields["total"], 7);
        assert_eq!(line.fields["user"], "amy", "the span's field is there too");
        assert_eq!(timer.fields["name"], "check_out");
    }

    #[test]
    fn an_empty_basket_is_worth_a_warning() {
        let messages = messages_of(|| assert!(check_out("bob", &[]).is_err()));

        assert_eq!(messages[0].severity, Severity::Warning);
        assert_eq!(messages[0].payload, "empty basket");
    }
}
