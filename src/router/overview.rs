//! A running router as its own servants see it, from threads of their own: the admin server and the reporter. In: questions,
//! and reports. Out: counters, and what is wrong with the router. Nothing can be lost here.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, TryRecvError};

use super::counters::{Counters, InputCounters, InputState};
use super::dispatch::{Dispatch, Intake};
use super::lock;
use super::stop::Stop;
use crate::Message;

/// See the module.
pub(super) struct Overview {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) stop: Arc<Stop>,
    pub(super) parts: Mutex<Parts>,
    /// Where reports come from: no input that anybody is told of.
    pub(super) own: Arc<InputState>,
}

/// What a router consists of.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) inputs: Vec<Arc<InputState>>,
    /// The threads of the inputs, in the same order; none any more once the router has ended.
    pub(super) readers: Vec<JoinHandle<()>>,
    /// Of each output: disconnected when its thread has ended.
    pub(super) outputs: Vec<Receiver<()>>,
}

impl Overview {
    /// What has been counted so far.
    pub(super) fn counters(&self) -> Counters {
        let inputs: Vec<InputCounters> =
            lock(&self.parts).inputs.iter().map(|input| input.counters()).collect();
        let mut malformed = BTreeMap::new();
        for (reason, count) in inputs.iter().flat_map(|input| &input.malformed) {
            *malformed.entry(*reason).or_default() += count;
        }
        Counters {
            received: inputs.iter().map(|input| input.received).sum(),
            bytes: inputs.iter().map(|input| input.bytes).sum(),
            malformed,
            types: self.dispatch.types.counters(),
            unrouted: self.dispatch.unrouted.load(Relaxed),
            duplicates: self.dispatch.duplicates.load(Relaxed),
            inputs,
            outputs: self.dispatch.outputs.iter().map(|queue| queue.state.counters()).collect(),
        }
    }

    /// Why the router is not well.
    #[cfg_attr(not(feature = "http"), allow(dead_code))]
    fn trouble(&self) -> Option<String> {
        if self.stop.is_requested() {
            return Some(String::from("draining: the router ends"));
        }
        let parts = lock(&self.parts);
        let reader = parts.readers.iter().position(JoinHandle::is_finished);
        if let Some(input) = reader.and_then(|reader| parts.inputs.get(reader)) {
            return Some(format!("the input {} has ended", input.address));
        }
        let ended = |done: &Receiver<()>| done.try_recv() == Err(TryRecvError::Disconnected);
        let writer = parts.outputs.iter().position(ended)?;
        let name = self.dispatch.outputs.get(writer).map_or("?", |queue| &queue.state.name);
        Some(format!("the output {name} has ended"))
    }
}

#[cfg(feature = "http")]
impl super::admin::Source for Overview {
    fn counters(&self) -> Counters {
        self.counters()
    }

    fn trouble(&self) -> Option<String> {
        self.trouble()
    }
}

impl super::report::Station for Overview {
    fn counters(&self) -> Counters {
        self.counters()
    }

    fn take(&self, messages: &[Message]) {
        let mut intake = Intake::new(Arc::clone(&self.dispatch), Arc::clone(&self.own));
        for message in messages {
            intake.frame(Ok(message.to_json().as_bytes()));
        }
        intake.hand_over();
    }
}
