//! `http://host:port/path` and `https://...`: batches of messages as bodies of POST requests, one message a line.
//!
//! In: batches. Out: requests, one at a time on a kept connection. A status from 200 to 299 confirms every message of its
//! request; 408, 429, 5xx and a connection that breaks before the answer mean the same request again, so a receiver
//! may see messages twice. Lost here: messages that the receiver refuses with any other status (`rejected`), and a
//! single message that is too long for it (`too_large`).
//!
//! A request is made by a thread of its own. [`send`](Transport::send) waits for the answer until its deadline, and when
//! it is called again for the same batch goes on waiting: a request that takes longer than one call is never made
//! twice for that.

mod answer;
mod form;
mod headers;
mod requests;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::super::address::{Address, AddressError, HttpOptions};
use super::super::backoff::Backoff;
use super::super::batch::Batch;
use super::socket;
use super::Transport;
use crate::stats::LossReason;
#[cfg(feature = "sentry")]
pub(crate) use answer::retry_after;
use answer::{verdict, Verdict};
#[cfg(feature = "router")]
pub(crate) use form::{Fate, Fates};
pub(crate) use form::{Form, Lines};
use headers::Headers;
use requests::{Answer, Requests, Target};

/// After so many requests without complaint, a size that was halved because of a 413 is doubled again.
const PROBE_AFTER: u32 = 100;

/// Messages in requests to one receiver.
#[derive(Debug)]
pub(crate) struct Http {
    target: Arc<Target>,
    requests: Option<Requests>,
    waiting: Option<Waiting>,
    size: Size,
    /// The receiver has asked for a pause until then.
    not_before: Option<Instant>,
    chance: Backoff,
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Waiting {
    /// The frames it was made for.
    frames: Arc<Vec<u8>>,
    messages: usize,
    answer: Receiver<io::Result<Answer>>,
}

/// How many bytes go into a request.
#[derive(Debug)]
struct Size {
    most: usize,
    now: usize,
    /// Requests that were taken since the size changed.
    taken: u32,
}

impl Http {
    /// What `address` says.
    ///
    /// # Errors
    /// A file or a variable that it names is not what it should be.
    pub(super) fn to(address: &Address, options: &HttpOptions) -> Result<Self, AddressError> {
        Http::shaped(address, options, Arc::new(Lines { json: options.json }))
    }

    /// The same with requests of another form.
    ///
    /// # Errors
    /// A file or a variable that the options name is not what it should be.
    pub(crate) fn shaped(
        address: &Address,
        options: &HttpOptions,
        form: Arc<dyn Form>,
    ) -> Result<Self, AddressError> {
        let unusable = |problem, accepted| AddressError::unusable(address, problem, accepted);
        let (file, variable) = (options.header_file.clone(), options.header_variable.as_deref());
        let headers = Headers::from(file, variable, &form.headers())
            .map_err(|problem| unusable(problem, "lines like \"Authorization: Bearer TOKEN\""))?;
        #[cfg(feature = "tls")]
        let agent = {
            let tls = match address {
                Address::Http { secure: true, .. } => {
                    let config =
                        super::trust::Trust::read(&options.tls).and_then(|trust| trust.request_config());
                    Some(config.map_err(|problem| unusable(problem, super::trust::ACCEPTED))?)
                }
                _ => None,
            };
            requests::agent(options.timeout, form.reads_answer(), tls)
        };
        #[cfg(not(feature = "tls"))]
        let agent = requests::agent(options.timeout, form.reads_answer());
        let url = address.to_string();
        let url = String::from(url.split('?').next().unwrap_or_default());
        if let Err(error) = url.parse::<ureq::http::Uri>() {
            return Err(unusable(error.to_string(), "a host and a path as RFC 3986 has them"));
        }
        let target =
            Target { url: format!("{url}{}", form.query()), agent, headers, gzip: options.gzip, form };
        Ok(Http {
            target: Arc::new(target),
            requests: None,
            waiting: None,
            size: Size { most: options.batch_bytes, now: options.batch_bytes, taken: 0 },
            not_before: None,
            chance: Backoff::new(),
        })
    }

    /// Waits for as long as the receiver has asked to be left alone.
    fn keep_away(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(until) = self.not_before else { return Ok(()) };
        std::thread::sleep(until.min(deadline).saturating_duration_since(Instant::now()));
        if Instant::now() < until {
            return Err(socket::timed_out());
        }
        self.not_before = None;
        Ok(())
    }

    /// The request that is being made for the beginning of `batch`, or a new one.
    fn request(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<Waiting> {
        // One that was made for messages which the worker has given up since answers to nobody.
        if let Some(waiting) =
            self.waiting.take().filter(|waiting| batch.remaining().starts_with(&waiting.frames))
        {
            return Ok(waiting);
        }
        batch.rewind();
        let (messages, bytes) = self.size.share(batch);
        let frames = Arc::new(batch.remaining()[..bytes].to_vec());
        let requests = match self.requests.take() {
            Some(requests) => requests,
            None => Requests::start(Arc::clone(&self.target))?,
        };
        let answer = requests.begin(self.target.form.body(&frames));
        self.requests = Some(requests);
        match answer {
            Some(answer) => {
                batch.wrote(bytes);
                Ok(Waiting { frames, messages, answer })
            }
            None => {
                socket::nap(deadline)?;
                Err(socket::timed_out())
            }
        }
    }

    /// Does what the answer says.
    fn settle(&mut self, waiting: &Waiting, answer: &Answer, batch: &mut Batch) -> io::Result<()> {
        match verdict(answer.status) {
            Verdict::Taken => {
                self.not_before = self.stretched(answer.pause);
                self.size.was_taken();
                self.settle_each(waiting, answer, batch)
            }
            Verdict::TooLarge if waiting.messages > 1 => {
                self.size.was_too_large(waiting.frames.len());
                Ok(())
            }
            Verdict::TooLarge => {
                batch.lost(LossReason::TooLarge);
                Ok(())
            }
            Verdict::Later => {
                self.not_before = self.stretched(answer.pause);
                Err(io::Error::other(match answer.pause {
                    None => answer.text.clone(),
                    Some(pause) => format!("{}; it asks for a pause of {} s", answer.text, pause.as_secs()),
                }))
            }
            Verdict::Refused => {
                (0..waiting.messages).for_each(|_| batch.lost(LossReason::Rejected));
                let (text, count, reason) = (&answer.text, waiting.messages, LossReason::Rejected);
                Err(io::Error::other(format!("{text}: {count} messages are refused and lost ({reason})")))
            }
        }
    }
}

impl Http {
    /// The end of a pause that the receiver has asked for, and a little more.
    fn stretched(&mut self, pause: Option<Duration>) -> Option<Instant> {
        let pause = self.chance.stretched(pause?);
        Instant::now().checked_add(pause)
    }

    /// The request was taken, and what it says of each message decides.
    fn settle_each(&self, waiting: &Waiting, answer: &Answer, batch: &mut Batch) -> io::Result<()> {
        if !self.target.form.reads_answer() {
            batch.delivered(waiting.messages);
            return Ok(());
        }
        let fates = self.target.form.fates(&answer.body, waiting.messages).map_err(io::Error::other)?;
        batch.settle_each(&fates.each);
        fates.problem.map_or(Ok(()), |problem| Err(io::Error::other(problem)))
    }
}

impl Transport for Http {
    fn send(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        let outcome = self.advance(batch, deadline);
        if self.waiting.is_none() {
            batch.rewind();
        }
        outcome
    }
}

impl Http {
    /// Makes requests until everything is settled. What is in one is written and not confirmed.
    fn advance(&mut self, batch: &mut Batch, deadline: Instant) -> io::Result<()> {
        while !batch.is_empty() {
            self.keep_away(deadline)?;
            let waiting = self.request(batch, deadline)?;
            match waiting.answer.recv_deadline(deadline) {
                Ok(Ok(answer)) => self.settle(&waiting, &answer, batch)?,
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {
                    self.waiting = Some(waiting);
                    return Err(socket::timed_out());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // It panicked, which no answer should make it do: the next request gets another thread.
                    self.requests = None;
                    return Err(io::Error::other("the request ended without an answer"));
                }
            }
        }
        Ok(())
    }
}

impl Size {
    /// The first messages of `batch` that fit, at least one: how many, and their bytes.
    fn share(&self, batch: &Batch) -> (usize, usize) {
        let (mut messages, mut bytes) = (0, 0);
        for frame in batch.frames() {
            if messages > 0 && bytes + frame.len() > self.now {
                break;
            }
            messages += 1;
            bytes += frame.len();
        }
        (messages, bytes)
    }

    fn was_too_large(&mut self, bytes: usize) {
        self.now = (bytes / 2).max(1);
        self.taken = 0;
    }

    /// A receiver that was set to take more is noticed, for the price of a refused request now and then.
    fn was_taken(&mut self) {
        self.taken = self.taken.saturating_add(1);
        if self.taken >= PROBE_AFTER && self.now < self.most {
            self.now = self.now.saturating_mul(2).min(self.most);
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests;
