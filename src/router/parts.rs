//! The parts of a running router: its open inputs and outputs, and what is left of those that it had. In: a
//! configuration, opened. Out: counters, and an end. Lost here: what clients have not sent and outputs have not written
//! at a deadline.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::config::{Input, RouterError};
use super::connections::Connections;
use super::counters::{InputCounters, InputState, OutputCounters, OutputState};
use super::dispatch::Dispatch;
use super::input::{self, Bound, Kept};
use super::kernel_drops::KernelDrops;
use super::output::{self, Output, Queue, Running};
use super::stop::Stop;

/// What connections get to end after they have been closed at the deadline.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// An input whose socket is open.
pub(super) struct OpenInput {
    pub(super) settings: Input,
    pub(super) state: Arc<InputState>,
    /// For a successor, until it stops.
    socket: Option<Kept>,
    connections: Arc<Connections>,
    stop: Arc<Stop>,
    /// Not read yet.
    bound: Option<Bound>,
    /// Others may look whether it has ended.
    reader: Option<Arc<JoinHandle<()>>>,
}

impl OpenInput {
    /// Opens the socket, or shares that of a predecessor, and reads nothing.
    pub(super) fn open(settings: Input, predecessor: Option<&Kept>) -> Result<Self, RouterError> {
        let stop = Arc::new(Stop::new().map_err(RouterError::System)?);
        let bound = input::bind(settings.clone(), predecessor)?;
        Ok(OpenInput {
            settings,
            state: Arc::clone(&bound.state),
            socket: Some(bound.keep().map_err(RouterError::System)?),
            connections: Arc::default(),
            stop,
            bound: Some(bound),
            reader: None,
        })
    }

    /// Starts reading, if that was not done before.
    pub(super) fn start(&mut self, dispatch: &Arc<Dispatch>) -> Result<(), RouterError> {
        if let Some(bound) = self.bound.take() {
            let reader = bound.start(dispatch, &self.connections, &self.stop).map_err(RouterError::System)?;
            self.reader = Some(Arc::new(reader));
        }
        Ok(())
    }

    /// Accepts nothing more, reads what a datagram socket still holds, and connections until they end or `deadline`.
    pub(super) fn request_stop(&self, deadline: Instant) {
        self.stop.request(deadline);
    }

    /// Accepts and reads nothing more, because a successor does on the same socket. Its connections go on until
    /// `deadline`.
    pub(super) fn supersede(&self, deadline: Instant) {
        self.stop.supersede(deadline);
    }

    /// What a successor may share.
    pub(super) fn socket(&self) -> Option<&Kept> {
        self.socket.as_ref()
    }

    /// Waits until the socket is closed, if nobody shares it, or `deadline`. Its connections may go on.
    pub(super) fn wait_unbound(&mut self, deadline: Instant) {
        self.socket = None;
        self.state.kernel_drops.iter().for_each(KernelDrops::end);
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the end that was requested. A reader that does not come to it is left behind: whoever waits for the
    /// router waits no longer than he said.
    pub(super) fn wait_read(&mut self, deadline: Instant) {
        self.socket = None;
        if let Some(reader) = self.reader.take() {
            let limit = deadline.max(Instant::now()) + CLOSE_GRACE;
            while !reader.is_finished() && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(1));
            }
            if reader.is_finished() {
                // Not if somebody looks at it just now; but it has ended.
                let _ = Arc::try_unwrap(reader).map(JoinHandle::join);
            }
        }
        self.connections.wait_closed(deadline);
    }

    /// Ends the connections that are left.
    pub(super) fn close(&self) {
        self.connections.close();
        self.connections.wait_closed(Instant::now() + CLOSE_GRACE);
    }

    /// For others to see whether its thread has ended.
    pub(super) fn reader(&self) -> Option<Arc<JoinHandle<()>>> {
        self.reader.clone()
    }

    /// Whether it has come to its end.
    pub(super) fn is_over(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.is_finished()) && self.connections.is_empty()
    }
}

/// An output with its thread.
pub(super) struct OpenOutput {
    /// Its name and all that it was told; `None` for one that is like no other.
    key: Option<(String, String)>,
    pub(super) queue: Arc<Queue>,
    /// Until its end.
    running: Option<Running>,
}

impl OpenOutput {
    pub(super) fn open(output: Output) -> Result<Self, RouterError> {
        let key = OpenOutput::key(&output);
        let (queue, running) = output::start(output)?;
        Ok(OpenOutput { key, queue: Arc::new(queue), running: Some(running) })
    }

    /// Has it open its files anew.
    pub(super) fn reopen(&self) {
        self.running.iter().for_each(Running::reopen);
    }

    /// Whether it has a name of its own, its counters, and what is disconnected when its thread has ended.
    pub(super) fn view(&self) -> (bool, Arc<OutputState>, Option<Receiver<()>>) {
        (self.key.is_some(), Arc::clone(&self.queue.state), self.running.as_ref().map(Running::ended))
    }

    /// Tells it to write what is queued, until `deadline`, and to end.
    pub(super) fn stop(&mut self, deadline: Instant) {
        self.running.iter_mut().for_each(|running| running.stop(deadline));
    }

    /// Waits until it has, or `deadline`.
    pub(super) fn wait(&mut self, deadline: Instant) {
        if let Some(running) = self.running.take() {
            running.wait(deadline);
        }
    }

    /// Whether `output`, opened, would be this one.
    pub(super) fn is(&self, output: &Output) -> bool {
        self.key.is_some() && self.key == OpenOutput::key(output)
    }

    fn key(output: &Output) -> Option<(String, String)> {
        output.settings().map(|settings| (output.to_string(), settings))
    }
}

/// What inputs and outputs have counted that are no more, or not much longer.
#[derive(Default)]
pub(super) struct Past {
    inputs: Vec<Arc<InputState>>,
    input_sums: Vec<InputCounters>,
    outputs: Vec<(bool, Arc<OutputState>)>,
    output_sums: Vec<(bool, OutputCounters)>,
}

impl Past {
    pub(super) fn add_input(&mut self, input: &OpenInput) {
        self.inputs.push(Arc::clone(&input.state));
    }

    pub(super) fn add_output(&mut self, output: &OpenOutput) {
        self.outputs.push((output.key.is_some(), Arc::clone(&output.queue.state)));
    }

    /// Keeps sums instead of the counters that nobody counts with any more, so that reloads cost no memory.
    pub(super) fn sum_up(&mut self) {
        for state in drain_unique(&mut self.inputs, |state| state) {
            merge_input(&mut self.input_sums, state.counters());
        }
        for (has_name, state) in drain_unique(&mut self.outputs, |(_, state)| state) {
            merge_output(&mut self.output_sums, has_name, state.counters());
        }
    }

    /// Adds what was counted to the counters of those that are open now, or behind them.
    pub(super) fn add_to(&self, inputs: &mut Vec<InputCounters>, outputs: &mut Vec<(bool, OutputCounters)>) {
        let living = self.inputs.iter().map(|state| state.counters());
        self.input_sums.iter().cloned().chain(living).for_each(|past| merge_input(inputs, past));
        let living = self.outputs.iter().map(|(has_name, state)| (*has_name, state.counters()));
        let all = self.output_sums.iter().cloned().chain(living);
        // What functions have counted that are gone is in no function's account that is there now.
        let present = outputs.len();
        for (has_name, past) in all {
            match has_name {
                true => merge_output(outputs, has_name, past),
                false => {
                    let mut gone = outputs.split_off(present);
                    merge_output(&mut gone, has_name, past);
                    outputs.append(&mut gone);
                }
            }
        }
    }
}

/// Takes out what nobody else holds.
fn drain_unique<T, S>(all: &mut Vec<T>, state: impl Fn(&T) -> &Arc<S>) -> Vec<T> {
    let (unique, shared) = all.drain(..).partition(|item| Arc::strong_count(state(item)) == 1);
    *all = shared;
    unique
}

fn merge_input(sums: &mut Vec<InputCounters>, counters: InputCounters) {
    match sums.iter_mut().find(|sum| sum.address == counters.address) {
        Some(sum) => sum.add(&counters),
        None => sums.push(counters),
    }
}

fn merge_output(sums: &mut Vec<(bool, OutputCounters)>, has_name: bool, counters: OutputCounters) {
    match sums.iter_mut().find(|(named, sum)| *named == has_name && sum.name == counters.name) {
        Some((_, sum)) => sum.add(&counters),
        None => sums.push((has_name, counters)),
    }
}
