//! `metrics` with `metrics-exporter-dogstatsd` for the timer alone: a histogram, looked up by its macro at each
//! call, sent in batches to a UDP port of this machine where the values are counted.
//!
//! It keeps numbers, not messages: a value carries no time, and nothing is queued that could be lost on the way.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use metrics_exporter_dogstatsd::DogStatsDBuilder;

use super::{Arrived, Running};
use crate::workload::Workload;

const METRIC: &str = "query";

pub fn start(workload: Workload) -> Option<Running> {
    if workload != Workload::Timer {
        return None;
    }
    let arrived = Arrived::default();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    let counting = arrived.clone();
    thread::spawn(move || count_values(&socket, &counting));
    DogStatsDBuilder::default()
        .with_remote_address(address)
        .expect("an address")
        .with_flush_interval(Duration::from_millis(20))
        .with_histogram_sampling(false)
        .with_telemetry(false)
        .install()
        .expect("the only recorder of this process");
    Some(arrived.running(|calls| {
        for id in 0..calls {
            ::metrics::histogram!(METRIC).record(7.0 + id as f64);
        }
    }))
}

/// Counts the values in lines like `query:7:8:9|d`.
fn count_values(socket: &UdpSocket, arrived: &Arrived) {
    let mut datagram = [0; 65_536];
    while let Ok(length) = socket.recv(&mut datagram) {
        let lines = String::from_utf8_lossy(&datagram[..length]);
        let values = lines.lines().filter_map(|line| line.strip_prefix(METRIC)?.split('|').next());
        arrived.add(values.map(|values| values.matches(':').count()).sum());
    }
}
