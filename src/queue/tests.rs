//! Conservation in the queue alone: what came in is taken, or counted with its reason.

use super::*;
use crate::capture::thread;

fn queue(when_full: WhenFull) -> (Queue, Receiver<Call>) {
    // The smallest there is.
    Queue::new(0, when_full, Arc::new(Counters::default()))
}

fn record(length: usize) -> Vec<u8> {
    let mut record = vec![0; length];
    record[..4].copy_from_slice(&(length as u32).to_le_bytes());
    record
}

fn taken(queue: &Queue) -> u64 {
    queue.seal_all();
    std::iter::from_fn(|| queue.take()).map(|chunk| chunk.messages).sum()
}

fn fill(queue: &Queue) -> u64 {
    let record = record(CHUNK_BYTES / 4);
    let count = queue.chunks as u64 * 8;
    (0..count).for_each(|_| queue.push(thread::index(), &record, 6, 1));
    count
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_them() {
    let (queue, _calls) = queue(WhenFull::DropNewest);
    let count = fill(&queue);
    let lost = queue.counters.lost(LossReason::QueueFull);
    assert!(lost > 0);
    assert_eq!(queue.emitted(), count);
    assert_eq!(taken(&queue) + lost, count);
}

#[test]
fn a_full_queue_drops_the_oldest_and_counts_them() {
    let (queue, _calls) = queue(WhenFull::DropOldest);
    for number in 0..queue.chunks as u64 * 8 {
        let mut record = record(CHUNK_BYTES / 4);
        record[8..16].copy_from_slice(&number.to_le_bytes());
        queue.push(thread::index(), &record, 6, 1);
    }
    let lost = queue.counters.lost(LossReason::QueueFull);
    queue.seal_all();
    let first = queue.take().expect("a chunk");
    assert_eq!(first.records()[8..16], lost.to_le_bytes(), "the oldest are gone, the next is there");
    assert_eq!(first.messages + taken(&queue) + lost, queue.emitted());
}

#[test]
fn debug_is_taken_again_when_there_is_room_although_the_note_of_that_was_missed() {
    let (queue, _calls) = queue(WhenFull::DropNewest);
    // What a caller leaves behind that looked at the room before all of it came back, and noted it after.
    queue.shedding.store(true, Ordering::Relaxed);
    queue.push(thread::index(), &record(64), 7, 1);
    assert_eq!((queue.counters.lost(LossReason::Shed), taken(&queue)), (0, 1));
}

#[test]
fn debug_is_shed_before_the_queue_is_full_and_comes_back_when_there_is_room() {
    let (queue, _calls) = queue(WhenFull::DropNewest);
    fill(&queue);
    queue.push(thread::index(), &record(64), 7, 1);
    assert_eq!(queue.counters.lost(LossReason::Shed), 1);
    queue.seal_all();
    while let Some(chunk) = queue.take() {
        queue.give_back(chunk);
    }
    queue.push(thread::index(), &record(64), 7, 1);
    assert_eq!(queue.counters.lost(LossReason::Shed), 1);
}

#[test]
fn a_caller_that_may_wait_for_a_while_waits_that_long_and_then_drops() {
    let patience = Duration::from_millis(20);
    let (queue, _calls) = queue(WhenFull::BlockFor(patience));
    let record = record(CHUNK_BYTES);
    for _ in 0..queue.chunks {
        queue.push(thread::index(), &record, 6, 1);
    }
    let start = Instant::now();
    queue.push(thread::index(), &record, 6, 1);
    assert!(start.elapsed() >= patience);
    assert_eq!(queue.counters.lost(LossReason::QueueFull), 1);
}

#[test]
fn a_blocked_caller_goes_on_when_there_is_room_and_loses_nothing() {
    let (queue, _calls) = queue(WhenFull::Block);
    let record = record(CHUNK_BYTES / 2);
    let count = queue.chunks as u64 * 10;
    let mut got = 0;
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| (0..count).for_each(|_| queue.push(thread::index(), &record, 6, 1)));
        while !producer.is_finished() {
            if let Some(chunk) = queue.take() {
                got += chunk.messages;
                queue.give_back(chunk);
            }
        }
    });
    assert_eq!(got + taken(&queue), count);
}

#[test]
fn a_closed_queue_wakes_those_that_wait_and_takes_nothing_more() {
    let (queue, _calls) = queue(WhenFull::Block);
    let record = record(CHUNK_BYTES);
    for _ in 0..queue.chunks {
        queue.push(thread::index(), &record, 6, 1);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| queue.push(thread::index(), &record, 6, 1));
        while !queue.is_waited_for() {
            std::thread::yield_now();
        }
        queue.close();
    });
    queue.push(thread::index(), &record, 6, 1);
    assert_eq!(queue.counters.lost(LossReason::Closed), 2);
    assert_eq!(taken(&queue), queue.chunks as u64);
}

#[test]
fn the_worker_is_called_once_when_an_armed_lane_gets_a_record() {
    let (queue, calls) = queue(WhenFull::DropNewest);
    assert!(queue.arm());
    queue.push(thread::index(), &record(64), 6, 1);
    queue.push(thread::index(), &record(64), 6, 1);
    assert!(matches!(calls.try_recv(), Ok(Call::Wake)));
    assert!(calls.try_recv().is_err());
    assert!(!queue.arm(), "a lane with a record is not armed");
}
