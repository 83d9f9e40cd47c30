//! What outputs over a network have in common: the client's own delivery, driven by the output's thread.
//!
//! In: encoded messages. Out: batches, through a transport of the client, which sends them until they are confirmed;
//! and, while the destination does not answer, through the client's spool. Every message stays in the account until
//! it is confirmed, lost for a reason, or on disk.
//!
//! Lost here: what the transport gives up (`rejected`, `too_large`), what the spool gives up, and at the end of the
//! router what was neither confirmed nor brought to disk by its deadline (`unreachable`, `unconfirmed`).

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Context;
use crate::capture;
use crate::delivery::aside::{Aside, Way};
use crate::delivery::destination::Destination;
use crate::delivery::outlet::Outlet;
use crate::delivery::spool::Spool;
use crate::delivery::transport::Transport;
use crate::router::counters::Account;
use crate::stats::{Counters, DestinationCounters, LossReason};
use crate::Address;

/// After this without a confirmation although messages wait, the destination is said to be stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// The longest pause between two looks at a destination that makes a full queue wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Of the time until the router's deadline, what is kept for drawing the account and for the disk: a quarter, and no
/// more than this. Whoever waits for the router waits no longer than until its deadline.
const TIME_FOR_THE_ACCOUNT: Duration = Duration::from_millis(500);

/// Messages on their way to one place.
pub(super) struct Delivery {
    /// One; the spool's side works on a list of them.
    outlets: [Outlet; 1],
    aside: Aside,
    all: Arc<Counters>,
    destination: Arc<DestinationCounters>,
    linger: Duration,
    batch_bytes: usize,
    /// Since when messages wait for others to be sent with.
    gathering_since: Option<Instant>,
    /// When the last attempt is to be over, once the router ends.
    end: Cell<Option<Instant>>,
    told: Told,
}

/// What the router's account knows already.
#[derive(Default)]
struct Told {
    delivered: u64,
    failures: u64,
    account: Account,
}

/// How a delivery goes about its work.
pub(super) struct Pace {
    /// How long a message waits for others to be sent with.
    pub(super) linger: Duration,
    /// So many bytes are sent without waiting.
    pub(super) batch_bytes: usize,
}

impl Delivery {
    /// Delivers through `transport`. `spool` opens the spool, if there is to be one.
    ///
    /// # Errors
    /// The spool cannot be opened.
    pub(super) fn new(
        name: String,
        transport: Box<dyn Transport>,
        pace: &Pace,
        spool: impl FnOnce(&Arc<Counters>) -> io::Result<Option<Spool>>,
    ) -> io::Result<Self> {
        let all = Arc::new(Counters::default());
        let destination = Arc::new(DestinationCounters::new(name, STUCK_AFTER));
        all.set_destinations(vec![Arc::clone(&destination)]);
        let outlet = Outlet::here(Destination::new(transport, Arc::clone(&destination)), &all, None);
        let spool = spool(&all)?;
        Ok(Delivery {
            outlets: [outlet],
            aside: Aside::new(spool),
            all,
            destination,
            linger: pace.linger,
            batch_bytes: pace.batch_bytes,
            gathering_since: None,
            end: Cell::new(None),
            told: Told::default(),
        })
    }

    /// Takes messages: into the batch at hand, or into the spool. Waits until there is room for them, and with
    /// `is_awaited` until they are confirmed or on disk.
    pub(super) fn write<'m, M>(&mut self, messages: M, is_awaited: bool, context: &Context)
    where
        M: Iterator<Item = &'m [u8]> + Clone,
    {
        // What a transport logs must not come back as a message.
        capture::thread::mark_as_own();
        while !self.take(messages.clone(), context) {
            if !self.wait(context) {
                self.all.lose(LossReason::Unreachable, messages.count() as u64);
                return self.tell(context);
            }
        }
        let is_full = self.outlets[0].unwritten_bytes() >= self.batch_bytes;
        let is_time = self.gathering_since.is_none_or(|since| since.elapsed() >= self.linger);
        if is_awaited {
            self.finish(context);
        } else if is_full || is_time {
            self.advance(context);
        } else {
            self.tell(context);
        }
    }

    /// Whether the messages found room.
    fn take<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>, context: &Context) -> bool {
        match self.way(context) {
            Way::Outlets => {
                messages.for_each(|message| self.aside.put(&mut self.outlets, message));
                self.gathering_since.get_or_insert_with(Instant::now);
                return true;
            }
            Way::Spool => {
                self.aside.choose();
                messages.for_each(|message| self.aside.put(&mut self.outlets, message));
                self.aside.write();
                return true;
            }
            Way::FromSpool => {
                self.aside.send(&mut self.outlets);
            }
            Way::Nowhere => {}
        }
        self.advance(context);
        false
    }

    fn way(&self, context: &Context) -> Way {
        let [outlet] = &self.outlets;
        let may_gather = self.gathering_since.is_some() && outlet.unwritten_bytes() < self.batch_bytes;
        if may_gather && !self.aside.is_sending() {
            return Way::Outlets;
        }
        self.aside.way(&self.outlets, context.is_filling() || context.deadline().is_some())
    }

    /// Takes one message, and waits as long as the batch at hand has so many bytes.
    #[cfg(feature = "sentry")]
    pub(super) fn write_within(&mut self, message: &[u8], most: usize, context: &Context) {
        capture::thread::mark_as_own();
        while self.outlets[0].held_bytes() >= most {
            self.advance(context);
            if self.outlets[0].held_bytes() >= most && !self.wait(context) {
                self.all.lose(LossReason::Unreachable, 1);
                return self.tell(context);
            }
        }
        self.outlets[0].put(message);
    }

    /// Takes one message, or loses it when the batch at hand has so many bytes already.
    #[cfg(feature = "sentry")]
    pub(super) fn write_or_lose(&mut self, message: &[u8], most: usize, context: &Context) {
        capture::thread::mark_as_own();
        match self.outlets[0].held_bytes() < most {
            true => self.outlets[0].put(message),
            false => {
                self.all.lose(LossReason::Lagging, 1);
                self.tell(context);
            }
        }
    }

    /// At the end of the router one message is lost if there is no time for it any more; whether it is.
    #[cfg(feature = "sentry")]
    pub(super) fn is_too_late(&mut self, context: &Context) -> bool {
        let is_over = self.is_over(context);
        if is_over {
            self.all.lose(LossReason::Unreachable, 1);
            self.tell(context);
        }
        is_over
    }

    /// Whether everything is confirmed or lost.
    #[cfg(feature = "sentry")]
    pub(super) fn is_settled(&self) -> bool {
        self.outlets[0].is_settled()
    }

    /// Sends what there is to send, and draws the account.
    pub(super) fn advance(&mut self, context: &Context) {
        self.gathering_since = None;
        self.outlets[0].send();
        self.aside.tend(&mut self.outlets);
        self.tell(context);
    }

    /// When [`tick`](Delivery::tick) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let outlet = match self.gathering_since {
            Some(since) => Some(since + self.linger),
            None => self.outlets[0].due(),
        };
        let is_idle = self.gathering_since.is_none() && self.outlets[0].is_settled();
        let backlog = (is_idle && self.aside.has_backlog()).then(Instant::now);
        [outlet, backlog, self.aside.due()].into_iter().flatten().min()
    }

    /// Does what is due. No new messages are there: those of the spool may go.
    pub(super) fn tick(&mut self, context: &Context) {
        capture::thread::mark_as_own();
        if self.gathering_since.is_some_and(|since| since.elapsed() < self.linger) {
            self.aside.tend(&mut self.outlets);
            return self.tell(context);
        }
        if self.gathering_since.is_none() {
            self.aside.pass_turn();
            if self.aside.way(&self.outlets, context.is_filling()) == Way::FromSpool {
                self.aside.send(&mut self.outlets);
            }
        }
        self.advance(context);
    }

    /// Until the next attempt is due. `false`: there is no time for another one.
    pub(super) fn wait(&self, context: &Context) -> bool {
        let until = |moment: Instant| moment.saturating_duration_since(Instant::now());
        let pause = self.due().map_or(LONGEST_PAUSE, until).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let left = self.end(context).map_or(pause, until);
        context.pause(pause.min(left));
        !self.is_over(context)
    }

    fn is_over(&self, context: &Context) -> bool {
        self.end(context).is_some_and(|end| Instant::now() >= end)
    }

    fn end(&self, context: &Context) -> Option<Instant> {
        let deadline = context.deadline()?;
        let end = self.end.get().unwrap_or_else(|| {
            let left = deadline.saturating_duration_since(Instant::now());
            deadline - (left / 4).min(TIME_FOR_THE_ACCOUNT)
        });
        self.end.set(Some(end));
        Some(end)
    }

    /// Until everything taken so far is confirmed, lost or on disk, or there is no time.
    pub(super) fn finish(&mut self, context: &Context) {
        self.outlets[0].hurry();
        let mark = self.outlets[0].mark();
        loop {
            self.advance(context);
            if self.aside.has_unwritten() {
                self.aside.sync();
            }
            let is_done = self.outlets[0].has_settled(mark) && !self.aside.has_unwritten();
            if is_done || !self.wait(context) {
                return self.tell(context);
            }
        }
    }

    /// Delivers what is left, until the router's deadline; then brings to disk what can be, and gives up the rest.
    pub(super) fn close(&mut self, context: &Context) {
        let end = self.end(context).unwrap_or_else(Instant::now);
        self.outlets[0].hurry();
        loop {
            self.advance(context);
            // With a spool nothing is gained by waiting for one that does not answer.
            let is_kept = self.aside.is_there() && self.outlets[0].is_failing();
            if self.outlets[0].is_settled() || is_kept || !self.wait(context) {
                break;
            }
        }
        self.aside.close(&mut self.outlets);
        let deadline = match self.outlets[0].is_settled() {
            true => context.deadline().unwrap_or(end),
            false => end,
        };
        self.outlets[0].close(deadline, 0);
        self.tell(context);
    }

    /// Brings what has changed into the router's account.
    fn tell(&mut self, context: &Context) {
        let (delivered, failures) = self.destination.progress();
        let lost = self.all.all_losses();
        let (inherited, spooled) = self.all.on_disk();
        let truncated = self.all.truncated.load(Ordering::Relaxed);
        let account = Account { lost, inherited, spooled, truncated };
        if account != self.told.account {
            context.account(&self.told.account, &account);
        }
        context.settle(delivered - self.told.delivered, Ok(()));
        let news = lost.since(&self.told.account.lost);
        if news.total() > 0 {
            let problem =
                self.destination.problem().map(|problem| format!("; {problem}")).unwrap_or_default();
            let error = io::Error::other(format!("messages lost: {news}{problem}"));
            context.settle(news.total(), Err(error));
        }
        if failures > self.told.failures {
            self.destination.problem().into_iter().for_each(|problem| context.trouble(problem));
        }
        self.told = Told { delivered, failures, account };
    }
}

/// The messages that were drawn into `lines`, each of which is `of` lines; without the newline at their ends.
pub(super) fn messages(lines: &[u8], of: usize) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index);
        let end = ends.nth(of - 1)?;
        let (message, behind) = rest.split_at(end);
        rest = &behind[1..];
        Some(message)
    })
}

/// Whether what is sent to `address` is received at `own`, an address that is listened on, as far as that can be told
/// without asking the network.
pub(super) fn are_one_place(address: &Address, own: &str) -> bool {
    let Ok(own) = own.parse() else { return false };
    match (address, &own) {
        (Address::Udp { host, port, .. }, Address::Udp { host: own_host, port: own_port, .. })
        | (Address::Tcp { host, port, .. }, Address::Tcp { host: own_host, port: own_port, .. })
        | (Address::Tls { host, port, .. }, Address::Tls { host: own_host, port: own_port, .. })
        | (Address::Http { host, port, .. }, Address::Http { host: own_host, port: own_port, .. }) => {
            port == own_port && is_host(host, own_host)
        }
        (Address::Unix { path, .. }, Address::Unix { path: own, .. })
        | (Address::UnixDatagram { path }, Address::UnixDatagram { path: own }) => path == own,
        _ => false,
    }
}

fn is_host(host: &str, own: &str) -> bool {
    let (host, own) = (ip(host), ip(own));
    let is_here = |host: IpAddr| host.is_loopback() || host.is_unspecified();
    match (host, own) {
        (Some(host), Some(own)) => {
            host == own || is_here(host) && own.is_unspecified() || host.is_unspecified() && is_here(own)
        }
        _ => false,
    }
}

/// The address that a host's name has on every machine.
fn ip(host: &str) -> Option<IpAddr> {
    match host.eq_ignore_ascii_case("localhost") {
        true => Some(IpAddr::from([127, 0, 0, 1])),
        false => host.parse().ok(),
    }
}

/// A setting that cannot be used.
pub(super) fn invalid(problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
