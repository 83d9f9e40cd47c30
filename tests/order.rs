//! Messages of one thread arrive in the order it made them, over every kind of transport.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use process_support::oracle::{assert_accounted, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::{built, lines_of, Directory, LONG};
use tracing_metlog::WhenFull;

const THREADS: u64 = 8;
const EACH: u64 = 20_000;
/// For those that only have to show that the order is the same everywhere.
const FEWER: u64 = 5_000;

/// Everything, in order: nothing is lost, because the threads wait for room.
fn sent_in_order(address: &str, each: u64, received: impl FnOnce(usize) -> Vec<String>) {
    let guard =
        built(tracing_metlog::builder().router(address).when_full(WhenFull::Block).flush_timeout(LONG));
    send_all(&guard.client(), THREADS, each);
    let stats = guard.finish();
    let got = Got::read(&received((THREADS * each) as usize));
    got.assert_complete(THREADS, each);
    got.assert_ordered();
    assert_accounted(&stats, &got, THREADS, each);
    assert_eq!(stats.lost.total(), 0, "{stats}");
}

#[test]
fn eight_threads_keep_their_order_over_tcp() {
    let receiver = Receiver::tcp();
    let address = receiver.address.clone();
    sent_in_order(&address, EACH, |_| receiver.close_at_end());
}

#[test]
fn eight_threads_keep_their_order_over_tcp_with_octet_counts() {
    let receiver = Receiver::tcp_counted();
    let address = receiver.address.clone();
    sent_in_order(&address, FEWER, |_| receiver.close_at_end());
}

#[test]
fn eight_threads_keep_their_order_over_a_unix_stream() {
    let directory = Directory::new();
    let receiver = Receiver::unix(&directory.file("router"));
    let address = receiver.address.clone();
    sent_in_order(&address, FEWER, |_| receiver.close_at_end());
}

#[test]
fn eight_threads_keep_their_order_over_unix_datagrams() {
    let directory = Directory::new();
    let receiver = Receiver::unixgram(&directory.file("router"));
    let address = receiver.address.clone();
    sent_in_order(&address, FEWER, |count| receiver.wait_for(count));
}

#[test]
fn eight_threads_keep_their_order_in_a_file() {
    let directory = Directory::new();
    let path = directory.file("log");
    sent_in_order(&format!("file://{}", path.display()), FEWER, |_| lines_of(&path));
}

/// UDP promises nothing once the kernel has a datagram; so the threads are paced by what the receiver has read.
#[test]
fn eight_threads_keep_their_order_over_udp() {
    const ROUND: u64 = 20;
    let receiver = Receiver::udp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    let client = guard.client();
    for round in 0..FEWER / ROUND / 5 {
        std::thread::scope(|scope| {
            for t in 0..THREADS {
                let client = &client;
                scope.spawn(move || (0..ROUND).for_each(|n| send(client, t, round * ROUND + n)));
            }
        });
        assert_eq!(guard.flush(LONG).pending, 0);
        receiver.wait_for(((round + 1) * ROUND * THREADS) as usize);
    }
    let stats = guard.finish();
    let got = Got::read(&receiver.close());
    got.assert_complete(THREADS, FEWER / 5);
    got.assert_ordered();
    assert_accounted(&stats, &got, THREADS, FEWER / 5);
}
