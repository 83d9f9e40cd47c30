//! Every open connection of a router. In: who comes and who goes. Out: whether there is a place, and a way to close them.
//!
//! Lost here: connections that give way to newcomers without having sent a single message (`gave_way`); what they had
//! sent of their first one goes with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config::Input;
use super::connection::Stream;
use super::counters::{add, InputState};
use super::lock;
use super::peers::is_same_peer;
use super::refused::RefusedReason;

/// How many may be on their way out beyond the limit, while newcomers have their places already.
const LEAVING: usize = 32;

/// What everybody gets to say something. Who connects in a crowd is read late, and what a closed connection had been sent is
/// lost although its client's kernel was told that it had arrived.
const GRACE: Duration = Duration::from_millis(250);

/// How long a newcomer waits for a place that will be free soon. Others wait in the kernel meanwhile, and lose nothing.
const WAIT: Duration = Duration::from_secs(1);

/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Every open connection, by its number: who came first has the lowest.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    left: Condvar,
}

#[derive(Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Connection>,
}

struct Connection {
    stream: Arc<dyn Stream>,
    input: Arc<InputState>,
    peer: Option<IpAddr>,
    has_spoken: Arc<AtomicBool>,
    since: Instant,
    is_leaving: bool,
}

impl Connections {
    /// A place for a newcomer, or why there is none.
    ///
    /// When all are taken, the oldest connection that has never sent a whole message gives way: who only connects costs a
    /// place and is of use to nobody. One that has sent a message never does, however long ago that was; programs that
    /// have little to say are as honest as others, and messages would be lost with their connections.
    pub(super) fn enter(
        self: &Arc<Self>,
        limits: &Input,
        input: &Arc<InputState>,
        (stream, peer): (&Arc<dyn Stream>, Option<IpAddr>),
    ) -> Result<Entry, RefusedReason> {
        let mut open = lock(&self.open);
        if let (Some(most), Some(peer)) = (limits.limits.max_connections_per_peer, peer) {
            if open.count_of(input, peer) >= most {
                return Err(RefusedReason::TooManyFromPeer);
            }
        }
        let deadline = Instant::now() + WAIT;
        while input.open.load(Relaxed) >= limits.max_connections as u64 {
            match open.make_room(input) {
                Room::Made => break,
                Room::Soon if Instant::now() < deadline => {
                    let waited = self.left.wait_timeout(open, LOOK_AGAIN);
                    open = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => return Err(RefusedReason::TooManyConnections),
            }
        }
        add(&input.open, 1);
        let has_spoken = Arc::new(AtomicBool::new(false));
        let number = open.next;
        open.next += 1;
        let connection = Connection {
            stream: Arc::clone(stream),
            input: Arc::clone(input),
            peer,
            has_spoken: Arc::clone(&has_spoken),
            since: Instant::now(),
            is_leaving: false,
        };
        open.all.insert(number, connection);
        Ok(Entry { connections: Arc::clone(self), input: Arc::clone(input), has_spoken, number })
    }

    /// Has the oldest connection of the input that has not sent a message give way.
    pub(super) fn make_room(&self, input: &Arc<InputState>) {
        lock(&self.open).make_room(input);
    }

    /// Waits until the last connection is closed, but not beyond `deadline`.
    pub(super) fn wait_closed(&self, deadline: Instant) {
        let patience: Duration = deadline.saturating_duration_since(Instant::now());
        let _ = self.left.wait_timeout_while(lock(&self.open), patience, |open| !open.all.is_empty());
    }

    /// Ends the reading of every connection.
    pub(super) fn close(&self) {
        lock(&self.open).all.values().for_each(|connection| connection.stream.close());
    }
}

impl Open {
    fn count_of(&self, input: &Arc<InputState>, peer: IpAddr) -> usize {
        let is_of = |connection: &&Connection| {
            Arc::ptr_eq(&connection.input, input)
                && connection.peer.is_some_and(|one| is_same_peer(one, peer))
        };
        self.all.values().filter(is_of).count()
    }

    fn make_room(&mut self, input: &Arc<InputState>) -> Room {
        let (mut leaving, mut silent) = (0, 0);
        for connection in self.all.values_mut().filter(|connection| Arc::ptr_eq(&connection.input, input)) {
            if connection.is_leaving {
                leaving += 1;
                if leaving == LEAVING {
                    return Room::Soon;
                }
            } else if !connection.has_spoken.load(Relaxed) {
                silent += 1;
                if connection.since.elapsed() >= GRACE && !connection.stream.has_unread() {
                    connection.is_leaving = true;
                    connection.stream.close();
                    input.refused.count(RefusedReason::GaveWay);
                    return Room::Made;
                }
            }
        }
        if leaving + silent > 0 {
            Room::Soon
        } else {
            Room::Never
        }
    }
}

/// Whether there is a place for a newcomer.
enum Room {
    Made,
    /// Somebody is on the way out, or has not had time to say anything.
    Soon,
    Never,
}

/// One connection's place among the open ones; given up when its thread ends, however it ends.
pub(super) struct Entry {
    connections: Arc<Connections>,
    input: Arc<InputState>,
    /// Whether a whole message has come from it.
    pub(super) has_spoken: Arc<AtomicBool>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.input.open.fetch_sub(1, Relaxed);
        lock(&self.connections.open).all.remove(&self.number);
        self.connections.left.notify_all();
    }
}
