//! A running router as its own servants see it, from threads of their own: the admin server and the reporter. In: questions,
//! and reports. Out: counters, and what is wrong with the router. Nothing can be lost here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, TryRecvError};

use super::counters::{Counters, InputCounters, InputState, OutputState};
use super::dispatch::{Dispatch, Intake};
use super::lock;
use super::parts::{OpenInput, OpenOutput, Past};
use crate::Message;

/// See the module.
pub(super) struct Overview {
    dispatch: Arc<Dispatch>,
    is_ending: AtomicBool,
    parts: Mutex<Parts>,
    /// Where reports come from: no input that anybody is told of.
    own: Arc<InputState>,
    /// What the router's own reports have told.
    told: Mutex<Counters>,
}

/// The thread of an input, shared with the input.
type Thread = Arc<JoinHandle<()>>;

/// What a router consists of, and what is left of what it had.
#[derive(Default)]
struct Parts {
    inputs: Vec<(Arc<InputState>, Option<Thread>)>,
    outputs: Vec<(bool, Arc<OutputState>, Option<Receiver<()>>)>,
    past: Past,
}

impl Overview {
    pub(super) fn of(dispatch: &Arc<Dispatch>) -> Self {
        Overview {
            dispatch: Arc::clone(dispatch),
            is_ending: AtomicBool::new(false),
            parts: Mutex::default(),
            told: Mutex::default(),
            own: Arc::new(InputState::new(String::from("metlog-router"))),
        }
    }

    /// From now on the router consists of these, and no longer of those: at once, so that nothing is counted twice.
    pub(super) fn publish(&self, now: (&[OpenInput], &[OpenOutput]), gone: (&[&OpenInput], &[&OpenOutput])) {
        let mut parts = lock(&self.parts);
        parts.inputs = now.0.iter().map(|input| (Arc::clone(&input.state), input.reader())).collect();
        parts.outputs = now.1.iter().map(OpenOutput::view).collect();
        gone.0.iter().for_each(|input| parts.past.add_input(input));
        gone.1.iter().for_each(|output| parts.past.add_output(output));
    }

    /// See [`Past::sum_up`].
    pub(super) fn sum_up(&self) {
        lock(&self.parts).past.sum_up();
    }

    /// Counts with an input that was never published.
    pub(super) fn add_input(&self, input: &OpenInput) {
        lock(&self.parts).past.add_input(input);
    }

    /// From now on the router ends, and it is no trouble that its threads do.
    pub(super) fn begin_end(&self) {
        self.is_ending.store(true, Relaxed);
        let mut parts = lock(&self.parts);
        // Whoever ends them waits for them too.
        parts.inputs.iter_mut().for_each(|(_, reader)| *reader = None);
    }

    /// What has been counted so far.
    pub(super) fn counters(&self) -> Counters {
        let (inputs, outputs) = self.parts_counters();
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
            outputs,
        }
    }

    fn parts_counters(&self) -> (Vec<InputCounters>, Vec<super::OutputCounters>) {
        let parts = lock(&self.parts);
        let mut inputs = parts.inputs.iter().map(|(state, _)| state.counters()).collect();
        let mut outputs = parts.outputs.iter().map(|(named, state, _)| (*named, state.counters())).collect();
        parts.past.add_to(&mut inputs, &mut outputs);
        (inputs, outputs.into_iter().map(|(_, output)| output).collect())
    }

    /// Why the router is not well.
    #[cfg_attr(not(feature = "http"), allow(dead_code))]
    fn trouble(&self) -> Option<String> {
        if self.is_ending.load(Relaxed) {
            return Some(String::from("draining: the router ends"));
        }
        let parts = lock(&self.parts);
        let has_ended =
            |reader: &Option<Arc<JoinHandle<()>>>| reader.as_ref().is_some_and(|reader| reader.is_finished());
        if let Some((input, _)) = parts.inputs.iter().find(|(_, reader)| has_ended(reader)) {
            return Some(format!("the input {} has ended", input.address));
        }
        let is_gone = |done: &Receiver<()>| done.try_recv() == Err(TryRecvError::Disconnected);
        let gone = parts.outputs.iter().find(|(_, _, done)| done.as_ref().is_some_and(is_gone));
        gone.map(|(_, output, _)| format!("the output {} has ended", output.name))
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

    fn told(&self) -> &Mutex<Counters> {
        &self.told
    }
}
