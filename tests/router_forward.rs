//! A router that sends on to another router: the same messages, all of them, and an account that says so.
#![cfg(feature = "router")]

mod output_support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::time::Duration;

use output_support::{
    balanced, closed_port, eventually, id, numbered, numbers, router, send, tally, try_router, Directory,
    PATIENCE,
};
use tracing_metlog::router::{Config, ForwardOutput, Input, Matcher, Output, Route, Router};
use tracing_metlog::{LossReason, Message};

fn to(router: &Router) -> ForwardOutput {
    ForwardOutput::new(&router.addresses()[0])
}

fn next_router(input: Input) -> (Router, tracing_metlog::router::Capture) {
    let (output, capture) = Output::capture();
    let config = Config::new().input(input).route(Route::new(Matcher::any(), output));
    (Router::start(config).expect("starts"), capture)
}

#[test]
fn a_message_arrives_at_the_next_router_exactly_as_its_program_made_it_over_every_transport() {
    let directory = Directory::new();
    let mut inputs = vec![Input::udp("127.0.0.1:0"), Input::tcp("127.0.0.1:0")];
    #[cfg(unix)]
    inputs.push(Input::unix(directory.path().join("stream")));
    #[cfg(unix)]
    inputs.push(Input::unixgram(directory.path().join("datagrams")));
    #[cfg(feature = "http")]
    inputs.push(Input::http("127.0.0.1:0"));
    for input in inputs {
        let (next, capture) = next_router(input);
        let name = next.addresses()[0].clone();
        let first = router(to(&next));
        let mut sent: Vec<Message> = (0..50).map(numbered).collect();
        // An early client: seven keys, and no id.
        let mut early = numbered(50);
        (early.pid, early.hostname) = (None, None);
        early.fields.remove("metlog_id");
        sent.push(early);
        send(&first, sent.clone());
        assert_eq!(capture.wait_for(51, PATIENCE), sent, "{name}");
        let output = balanced(&first.shutdown(PATIENCE));
        assert_eq!(
            (output.delivered, output.name.trim_end_matches('/')),
            (51, format!("forward:{name}").as_str())
        );
        assert_eq!(next.shutdown(PATIENCE).received, 51);
    }
    drop(directory);
}

#[test]
fn what_is_sent_while_the_next_router_is_away_waits_and_arrives_in_order_when_it_is_there() {
    let port = closed_port();
    let address = format!("127.0.0.1:{port}");
    let first = router(ForwardOutput::new(format!("tcp://{address}")));
    send(&first, (0..300).map(numbered));
    eventually("the trouble is told", || first.counters().outputs[0].last_error.is_some());
    let before = first.counters().outputs[0].clone();
    assert_eq!((before.delivered, before.failed), (0, 0), "{before:?}");
    let (output, capture) = Output::capture();
    let next = try_router(&address, output).expect("starts");
    let got = capture.wait_for(300, PATIENCE);
    assert_eq!(numbers(&got), (0..300).collect::<Vec<_>>());
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed), (300, 0));
    next.shutdown(PATIENCE);
}

/// A peer that reads so many lines, breaks the connection and begins anew, ten times; then it reads to the end.
fn breaking_peer(listener: TcpListener) -> Vec<u64> {
    let mut got = Vec::new();
    for connection in 0.. {
        let (stream, _) = listener.accept().expect("a connection");
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let most = if connection < 10 { 37 } else { usize::MAX };
        for line in lines.take(most) {
            // A line that the break has cut is no message, and comes again.
            let Ok(message) = line.parse::<Message>() else { continue };
            got.push(message.fields["number"].as_u64().expect("a number"));
        }
        if connection >= 10 {
            break;
        }
    }
    got
}

#[test]
fn a_connection_that_breaks_again_and_again_costs_only_what_its_kernel_had_confirmed_and_never_an_account() {
    const SENT: u64 = 2_000;
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    let peer = std::thread::spawn(move || breaking_peer(listener));
    let first = router(ForwardOutput::new(address));
    for batch in 0..20 {
        send(&first, (batch * 100..(batch + 1) * 100).map(numbered));
        eventually("the batch is settled", || {
            first.counters().outputs[0].delivered >= (batch as u64 + 1) * 100
        });
    }
    let output = balanced(&first.shutdown(PATIENCE));
    assert_eq!((output.delivered, output.failed, output.dropped), (SENT, 0, 0), "{output:?}");
    let got = tally(peer.join().expect("reads"));
    assert!(got.keys().all(|&number| number < SENT), "a message that nobody sent");
    // TCP's kernel confirms what its program has not read: a connection can cost one batch and no more.
    assert!(SENT - got.len() as u64 <= 10 * 100, "{} of {SENT} arrived", got.len());
    assert!((1_900..SENT).all(|number| got.contains_key(&number)), "the last connection is whole");
}

#[test]
fn a_dead_router_costs_what_was_not_delivered_by_the_deadline_counted_by_reason() {
    let first = router(ForwardOutput::new(format!("tcp://127.0.0.1:{}", closed_port())));
    send(&first, (0..100).map(numbered));
    eventually("received", || first.counters().received == 100);
    let begun = std::time::Instant::now();
    let counters = first.shutdown(Duration::from_secs(2));
    assert!(begun.elapsed() >= Duration::from_secs(1), "it tried until the deadline");
    assert!(begun.elapsed() < Duration::from_secs(3), "and no longer: {:?}", begun.elapsed());
    let output = balanced(&counters);
    assert_eq!((output.delivered, output.failed, output.queued), (0, 100, 0), "{output:?}");
    assert_eq!(output.lost.count(LossReason::Unreachable), 100);
}

#[test]
fn memory_is_bounded_by_queue_bytes_and_what_finds_no_room_is_dropped_and_counted() {
    let dead = format!("tcp://127.0.0.1:{}", closed_port());
    let first = router(ForwardOutput::new(dead).queue_bytes(64 * 1024));
    let long = "x".repeat(1_000);
    for batch in 0..10 {
        let messages = (batch * 100..(batch + 1) * 100).map(numbered).map(|mut message| {
            message.payload = long.as_str().into();
            message
        });
        send(&first, messages);
    }
    eventually("received", || first.counters().received == 1_000);
    let output = balanced(&first.shutdown(Duration::from_millis(100)));
    // Its queue, what it holds to send, and the batch that was being put in.
    assert!(output.dropped >= 700, "{output:?}");
    assert!(output.dropped < 1_000 && output.delivered == 0, "{output:?}");
}

#[cfg(feature = "spool")]
#[test]
fn what_a_dead_router_does_not_take_is_on_disk_and_the_next_start_delivers_it() {
    let directory = Directory::new();
    let address = format!("127.0.0.1:{}", closed_port());
    let output = || ForwardOutput::new(format!("tcp://{address}")).spool(directory.path());
    let first = router(output());
    send(&first, (0..500).map(numbered));
    eventually("received", || first.counters().received == 500);
    eventually("on disk", || first.counters().outputs[0].spooled > 0);
    let account = balanced(&first.shutdown(Duration::from_secs(5)));
    assert_eq!((account.spooled, account.delivered, account.failed), (500, 0, 0), "{account:?}");

    let (capture_output, capture) = Output::capture();
    let next = try_router(&address, capture_output).expect("starts");
    let first = router(output());
    send(&first, (500..600).map(numbered));
    let got = tally(numbers(&capture.wait_for(600, PATIENCE)));
    assert_eq!(got, tally(0..600));
    eventually("all is delivered", || first.counters().outputs[0].delivered == 600);
    let account = balanced(&first.shutdown(PATIENCE));
    assert_eq!((account.inherited, account.spooled, account.delivered), (500, 0, 600), "{account:?}");
    assert_eq!(next.shutdown(PATIENCE).duplicates, 0);
}

#[cfg(feature = "spool")]
#[test]
fn a_backlog_is_sent_while_no_new_message_comes() {
    let directory = Directory::new();
    let address = format!("127.0.0.1:{}", closed_port());
    let first = router(ForwardOutput::new(format!("tcp://{address}")).spool(directory.path()));
    send(&first, (0..1_000).map(numbered));
    eventually("on disk", || first.counters().outputs[0].spooled > 500);
    let (output, capture) = Output::capture();
    let next = try_router(&address, output).expect("starts");
    assert_eq!(tally(numbers(&capture.wait_for(1_000, PATIENCE))), tally(0..1_000));
    let account = balanced(&first.shutdown(PATIENCE));
    assert_eq!((account.delivered, account.spooled, account.failed), (1_000, 0, 0), "{account:?}");
    next.shutdown(PATIENCE);
}

#[cfg(feature = "http")]
#[test]
fn an_http_client_hears_200_when_the_next_router_has_its_messages() {
    let (output, capture) = Output::capture();
    let next = router(output);
    let config =
        Config::new().input(Input::http("127.0.0.1:0")).route(Route::new(Matcher::any(), to(&next).into()));
    let first = Router::start(config).expect("starts");
    for request in 0..20 {
        let body = format!("{}\n", numbered(request).to_json());
        let status = ureq::post(&first.addresses()[0]).send(body.as_bytes()).expect("an answer").status();
        assert_eq!(status, 200);
        let account = first.counters().outputs[0].clone();
        assert_eq!(
            (account.delivered, account.queued),
            (request as u64 + 1, 0),
            "confirmed before the answer"
        );
    }
    assert_eq!(numbers(&capture.wait_for(20, PATIENCE)), (0..20).collect::<Vec<_>>());
    first.shutdown(PATIENCE);
}

#[test]
fn a_router_that_would_send_to_itself_does_not_start_and_says_why() {
    let config = |input: Input, address: &str| {
        Config::new().input(input).route(Route::new(Matcher::any(), ForwardOutput::new(address).into()))
    };
    let port = closed_port();
    let directory = Directory::new();
    let socket = directory.path().join("socket");
    let unix = format!("unix://{}", socket.display());
    let tcp = |host: &str| format!("tcp://{host}:{port}");
    let circles = [
        (Input::tcp(format!("127.0.0.1:{port}")), tcp("127.0.0.1")),
        (Input::tcp(format!("127.0.0.1:{port}")), tcp("localhost")),
        (Input::tcp(format!("0.0.0.0:{port}")), tcp("127.0.0.1")),
        (Input::tcp(format!("127.0.0.1:{port}")), tcp("0.0.0.0")),
        (Input::udp(format!("127.0.0.1:{port}")), format!("udp://127.0.0.1:{port}")),
        #[cfg(unix)]
        (Input::unix(&socket), unix.clone()),
        #[cfg(feature = "http")]
        (Input::http(format!("127.0.0.1:{port}")), format!("http://localhost:{port}/any/path")),
    ];
    for (input, address) in circles {
        let error = Router::start(config(input, &address)).expect_err("a circle").to_string();
        assert!(error.contains("this router's own input"), "{address}: {error}");
    }
    // Another scheme or another port is another place.
    Router::start(config(Input::tcp(format!("127.0.0.1:{port}")), &format!("udp://127.0.0.1:{port}")))
        .expect("starts")
        .shutdown(Duration::ZERO);
}

#[test]
fn in_a_circle_of_two_routers_a_message_with_an_id_goes_round_once() {
    let port = closed_port();
    let address = format!("127.0.0.1:{port}");
    let (output, capture) = Output::capture();
    let second = Router::start(
        Config::new()
            .input(Input::tcp("127.0.0.1:0"))
            .route(Route::new(Matcher::any(), output))
            .route(Route::new(Matcher::any(), ForwardOutput::new(format!("tcp://{address}")).into())),
    )
    .expect("starts");
    let first = try_router(&address, to(&second)).expect("starts");
    send(&first, (0..200).map(numbered));
    assert_eq!(capture.wait_for(200, PATIENCE).len(), 200);
    eventually("they are back", || first.counters().duplicates == 200);
    // Each waits for the connection that the other one keeps: not for long.
    let account = balanced(&first.shutdown(Duration::from_secs(1)));
    assert_eq!(account.delivered, 200);
    assert_eq!(second.shutdown(PATIENCE).received, 200);
    assert_eq!(numbers(&capture.messages()).len(), 200);
    assert_eq!(id(0), capture.messages()[0].fields["metlog_id"]);
}

#[test]
fn a_setting_that_cannot_be_used_is_named_with_what_would_be_and_no_password() {
    let refused = |output: ForwardOutput| try_router("127.0.0.1:0", output).expect_err("refused").to_string();
    let error = refused(ForwardOutput::new("http://user:secret@host/"));
    assert!(error.starts_with("cannot open forward: ") && !error.contains("secret"), "{error}");
    let error = refused(ForwardOutput::new("off"));
    assert!(error.contains("off is no router"), "{error}");
    let error = refused(ForwardOutput::new("udp://127.0.0.1:1").spool_bytes(7));
    assert!(error.contains("spool"), "{error}");
    #[cfg(feature = "spool")]
    {
        let directory = Directory::new();
        let output = ForwardOutput::new("udp://127.0.0.1:1").spool(directory.path()).spool_bytes(7);
        let error = refused(output);
        assert!(error.contains("spool_bytes 7: a number of bytes from 65536 on"), "{error}");
        let file = directory.path().join("file");
        std::fs::write(&file, "no directory").expect("written");
        let error = refused(ForwardOutput::new("udp://127.0.0.1:1").spool(&file));
        assert!(error.contains(&format!("spool {}", file.display())), "{error}");
    }
}
