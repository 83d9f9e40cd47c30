//! `valuable` fields are JSON arrays and objects, not their `Debug` text. Runs under `--cfg tracing_unstable` only,
//! as `tracing` itself has it.
#![cfg(all(tracing_unstable, feature = "valuable"))]

use std::collections::BTreeMap;

use serde_json::json;
use tracing_metlog::Capture;
use tracing_subscriber::layer::SubscriberExt;
use valuable::Valuable;

#[test]
fn a_valuable_field_arrives_as_an_array_or_an_object() {
    let capture = Capture::new();
    let (layer, guard) = tracing_metlog::builder().transport(capture.clone()).build().expect("a layer");
    let stock = BTreeMap::from([("apples", 3u64), ("pears", 0)]);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(numbers = [1u8, 2, 3].as_value(), stock = stock.as_value());
    });
    drop(guard);
    let fields = &capture.messages()[0].fields;
    assert_eq!(fields["numbers"], json!([1, 2, 3]));
    assert_eq!(fields["stock"], json!({"apples": 3, "pears": 0}));
}
