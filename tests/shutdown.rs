//! The end of a generator, and its idle life: nothing hangs, nothing is left behind, nothing is burnt.
#![cfg(all(unix, feature = "tracing", feature = "log"))]

mod process_support;

use std::time::{Duration, Instant};

use process_support::child;
use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::receiver::Receiver;
use process_support::{built, closed_port, timed, LONG};
use tracing_metlog::LossReason;
use tracing_subscriber::layer::SubscriberExt;

#[test]
fn what_is_logged_after_the_guard_is_gone_is_counted_and_takes_no_time() {
    let receiver = Receiver::tcp();
    let (layer, guard) = tracing_metlog::builder().router(&receiver.address).build().expect("builds");
    let (logger, second) =
        tracing_metlog::builder().router(&receiver.address).filter("info").build_logger().expect("builds");
    let subscriber = tracing_subscriber::registry().with(layer);
    let client = guard.client();
    send_all(&client, 4, 100);
    let stats = guard.finish();
    let of_second = second.client();
    drop(second);
    let (took, ()) = timed(|| {
        send_all(&client, 4, 10_000);
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("late").entered();
            tracing::info!("too late");
        });
        let record = log::Record::builder().level(log::Level::Error).args(format_args!("too late")).build();
        log::Log::log(&logger, &record);
        of_second.incr("late");
    });
    assert!(took < LONG / 2, "{took:?}");
    let got = Got::read(&receiver.close_at_end());
    got.assert_complete(4, 100);
    assert_accounted(&stats, &got, 4, 100);
}

#[test]
fn what_is_logged_after_the_end_is_counted_as_closed() {
    let receiver = Receiver::tcp();
    // The account is the guard's; what was counted after it is seen by asking for the sum over the process.
    let guard = built(tracing_metlog::builder().router(&receiver.address));
    let client = guard.client();
    send_all(&client, 1, 10);
    let before = tracing_metlog::flush(Duration::ZERO).lost;
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!(stats.lost.count(LossReason::Closed), 0);
    send_all(&client, 1, 25);
    assert!(tracing_metlog::flush(Duration::ZERO).lost >= before + 25);
    Got::read(&receiver.close_at_end()).assert_complete(1, 10);
}

#[test]
fn messages_made_while_the_guard_is_dropped_arrive_or_are_counted() {
    for _ in 0..20 {
        let receiver = Receiver::tcp();
        let guard = built(tracing_metlog::builder().router(&receiver.address));
        let client = guard.client();
        let stats = std::thread::scope(|scope| {
            for t in 0..4 {
                let client = &client;
                scope.spawn(move || (0..2_000).for_each(|n| send(client, t, n)));
            }
            process_support::eventually("they have begun", || guard.stats().emitted > 100);
            guard.finish()
        });
        assert_balanced(&stats);
        let got = Got::read(&receiver.close_at_end());
        got.assert_genuine(4, 2_000);
        got.assert_ordered();
        // What was made after the account was drawn is closed; what was delivered is what came.
        assert!(stats.delivered == got.count() && stats.pending == 0, "{stats}, {} came", got.count());
    }
}

/// What the children of this file do; nothing when it is run as a test.
#[test]
fn child() {
    let Some(mode) = child::mode() else { return };
    match mode.as_str() {
        "finish, then exit" => finish_then_exit(),
        "build and drop" => build_and_drop(),
        "idle" => idle(),
        other => panic!("mode {other}"),
    }
}

fn finish_then_exit() {
    let guard = tracing_metlog::builder().router(child::router()).init();
    send_all(&guard.client(), 1, 100);
    let begun = Instant::now();
    let stats = guard.finish();
    tracing::info!("too late");
    child::say("stats", stats);
    child::say("finished", begun.elapsed().as_millis());
    std::process::exit(7);
}

#[test]
fn finishing_and_then_exiting_delivers_once_and_does_not_wait_twice() {
    let receiver = Receiver::tcp();
    let ended = child::run(child::command("child", "finish, then exit", &receiver.address));
    assert_eq!(ended.status.code(), Some(7), "{ended:#?}");
    assert_eq!(ended.said("stats"), "emitted 100 = delivered 100 + lost 0 + pending 0");
    assert!(ended.took < Duration::from_secs(4), "{ended:#?}");
    Got::read(&receiver.close_at_end()).assert_complete(1, 100);
}

/// Threads and open files of this process, by what the kernel says.
fn held() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).expect("Linux").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

fn build_and_drop() {
    let once = |router: &[String]| {
        let mut builder = tracing_metlog::builder().flush_timeout(Duration::from_secs(5)).queue_bytes(1);
        for router in router {
            builder = builder.router(router);
        }
        let guard = built(builder);
        send(&guard.client(), 0, 0);
        assert_eq!(guard.finish().pending, 0);
    };
    let alive = child::router();
    // Somebody is there, and does not care.
    let careless = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let two = [alive.clone(), format!("udp://{}", careless.local_addr().expect("bound"))];
    once(std::slice::from_ref(&alive));
    once(&two);
    let before = held();
    for round in 0..100 {
        once(std::slice::from_ref(&alive));
        once(&two);
        // A thread says that it is done a moment before it is gone, and its socket with it.
        process_support::eventually(&format!("what round {round} had is gone"), || {
            let now = held();
            now.0 <= before.0 && now.1 <= before.1
        });
    }
    child::say("held", held().1);
}

#[cfg(target_os = "linux")]
#[test]
fn building_and_dropping_two_hundred_times_leaves_no_thread_and_no_open_file() {
    let receiver = Receiver::tcp();
    let ended = child::run(child::command("child", "build and drop", &receiver.address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    ended.said("held");
    assert_eq!(receiver.close_at_end().len(), 202);
}

/// Processor time this process has used, of all its threads, in its own code and in the kernel's.
fn processor_time() -> Duration {
    let usage = rustix_usage();
    let of = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

#[allow(unsafe_code)]
fn rustix_usage() -> libc::rusage {
    // SAFETY: a structure of numbers, which the call fills in.
    unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    }
}

fn idle() {
    let guard = tracing_metlog::builder().router(child::router()).init();
    tracing::info!("one message, so that there is something to have been busy with");
    let _ = guard.flush(Duration::from_millis(500));
    // The steps from busy to asleep take about two seconds.
    std::thread::sleep(Duration::from_secs(3));
    let before = processor_time();
    std::thread::sleep(Duration::from_secs(2));
    child::say("used", (processor_time() - before).as_micros());
    drop(guard);
}

#[test]
fn an_idle_program_uses_no_processor_time() {
    let receiver = Receiver::tcp();
    let ended = child::run(child::command("child", "idle", &receiver.address));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let used: u64 = ended.said("used").parse().expect("microseconds");
    assert!(used < 20_000, "{used} µs of 2 s");
    assert_eq!(receiver.close_at_end().len(), 1);
}

#[test]
fn an_idle_program_uses_hardly_any_processor_time_while_its_router_is_down() {
    let router = format!("tcp://127.0.0.1:{}", closed_port());
    let ended = child::run(child::command("child", "idle", &router));
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let used: u64 = ended.said("used").parse().expect("microseconds");
    assert!(used < 20_000, "{used} µs of 2 s");
}
