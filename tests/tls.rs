//! A thread's last words: what its thread-local destructors log, when most of what a thread has is gone, arrives
//! or is counted. So does what `main`'s own destructors log.
#![cfg(all(unix, feature = "tracing"))]

mod process_support;

use std::cell::RefCell;

use process_support::built;
use process_support::child;
use process_support::oracle::{assert_accounted, send, text, Got};
use process_support::receiver::Receiver;
use tracing_metlog::Client;
use tracing_subscriber::layer::SubscriberExt;

/// Logs when it is dropped, which is when its thread ends.
struct LastWords {
    t: u64,
    client: Option<Client>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        match &self.client {
            Some(client) => send(client, self.t, 1),
            // No span: the registry of tracing-subscriber 0.3 panics when it is asked for one in such a destructor.
            None => tracing::info!(t = self.t, n = 1, "{}", text(self.t, 1)),
        }
    }
}

thread_local! {
    // Of two, one is made before anything is logged on the thread and one after: their destructors run on both
    // sides of those of this crate's own.
    static EARLY: RefCell<Option<LastWords>> = const { RefCell::new(None) };
    static LATE: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

/// One thread: producer `t` speaks early, `t + 1` late.
fn speak(t: u64, client: Option<&Client>, log: impl Fn(u64)) {
    let words = |t| Some(LastWords { t, client: client.cloned() });
    EARLY.set(words(t));
    log(t);
    LATE.set(words(t + 1));
    log(t + 1);
}

#[test]
fn what_the_thread_locals_of_a_thread_say_when_it_ends_arrives() {
    const THREADS: u64 = 50;
    let receiver = Receiver::tcp();
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    let client = guard.client();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = &client;
            scope.spawn(move || speak(thread * 2, Some(client), |t| send(client, t, 0)));
        }
    });
    // The scope waits for the closures, not for the destructors: the flush at the end is what has to find them.
    process_support::eventually("every destructor has run", || guard.stats().emitted == THREADS * 4);
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(THREADS * 2, 2);
    assert_accounted(&stats, &got, THREADS * 2, 2);
}

#[test]
fn what_the_thread_locals_of_a_thread_say_through_tracing_arrives_or_is_counted() {
    const THREADS: u64 = 50;
    let receiver = Receiver::tcp();
    let builder = tracing_metlog::builder().router(&receiver.address).disabled_timers(["*"]);
    let (layer, guard) = builder.build().expect("builds");
    // The subscriber of a thread is in a thread-local too, which may be gone before; the global one is not.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .expect("the only one");
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let log = |t| tracing::info!(t, n = 0, "{}", text(t, 0));
            std::thread::spawn(move || speak(thread * 2, None, log))
        })
        .collect();
    // Joining waits for the destructors.
    threads.into_iter().for_each(|thread| thread.join().expect("no crash"));
    let stats = guard.finish();
    let got = Got::read(&receiver.close_at_end());
    got.assert_genuine(THREADS * 2, 2);
    for t in 0..THREADS * 2 {
        assert!(got.ids.contains_key(&(t, 0)), "what was said before the end");
    }
    // `tracing` itself may be gone by then; what it passed on has arrived.
    assert_eq!(stats.emitted, got.count(), "{stats}");
    assert_eq!(stats.delivered, got.count(), "{stats}");
}

/// What the child of this file does; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    let guard = tracing_metlog::builder().router(child::router()).disabled_timers(["*"]).init();
    let client = (mode == "client").then(|| guard.client());
    speak(0, client.as_ref(), |t| tracing::info!(t, n = 0, "{}", text(t, 0)));
    std::mem::forget(guard);
}

#[test]
fn what_the_thread_locals_of_main_say_arrives_or_is_counted_and_the_program_ends_well() {
    for mode in ["client", "tracing"] {
        let receiver = Receiver::tcp();
        let ended = child::run(child::command("child", mode, &receiver.address));
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        let got = Got::read(&receiver.close_at_end());
        got.assert_genuine(2, 2);
        assert!(got.ids.contains_key(&(0, 0)) && got.ids.contains_key(&(1, 0)), "{mode}: {:?}", got.ids);
        if mode == "client" {
            got.assert_complete(2, 2);
        }
    }
}
