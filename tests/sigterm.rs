//! The example of a service that ends on a signal: everything it said arrives, its last words too.
#![cfg(all(unix, feature = "tracing"))]

#[path = "../examples/sigterm.rs"]
mod example;
mod process_support;

use std::process::Command;

use process_support::receiver::Receiver;
use process_support::{child, fault_report, LONG};
use serde_json::Value;

/// The service; nothing when it is run as a test.
#[test]
fn child() {
    if child::mode().is_some() {
        example::main().expect("ends well");
    }
}

fn ends_well_on(signal: &str) {
    let receiver = Receiver::tcp();
    let mut command = child::command("child", "serve", "");
    command.env("METLOG_ROUTER", &receiver.address);
    let service = command.spawn().expect("starts");
    let pid = service.id().to_string();
    let before = receiver.wait_for(50).len();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().expect("runs").success());
    let ended = wait(service);
    assert!(ended.success(), "{ended}");
    let lines: Vec<Value> =
        receiver.close_at_end().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() >= before);
    let numbers: Vec<u64> = lines.iter().filter_map(|line| line["fields"]["number"].as_u64()).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "no gap and nothing twice: {numbers:?}");
    assert!(lines.iter().any(|line| line["payload"] == "ending"), "{:?}", lines.last());
    let count = lines.len() as u64;
    fault_report::record(&format!("SIG{signal} to examples/sigterm.rs"), "0 lost", count, count, &[], 0);
}

/// Waits for the service, which must end.
fn wait(mut service: std::process::Child) -> std::process::ExitStatus {
    let begun = std::time::Instant::now();
    loop {
        if let Some(status) = service.try_wait().expect("waited for") {
            return status;
        }
        if begun.elapsed() > LONG {
            let _ = service.kill();
            panic!("the service does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn a_service_that_is_told_to_end_by_sigterm_delivers_everything_and_its_last_words() {
    ends_well_on("TERM");
}

#[test]
fn a_service_that_is_told_to_end_by_ctrl_c_delivers_everything_and_its_last_words() {
    ends_well_on("INT");
}
