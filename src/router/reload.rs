//! Another configuration for a router that runs. In: a [`Config`]. Out: the same router with other inputs, routes and
//! outputs, without a message lost on the way.
//!
//! What is new is opened before anything is changed, so that an error changes nothing. Then the routes are replaced as a
//! whole: who is in the middle of a batch ends it with the routes that it began with. An output that has been removed is
//! told to end only when nobody holds those any more.
//!
//! Lost here: what clients of a removed input have not sent, and what a removed output has not written, by the deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{Config, Input, Route, RouterError};
use super::dispatch::Routes;
use super::matcher::Matcher;
use super::output::Output;
use super::parts::{OpenInput, OpenOutput};
use super::{refuse_circles, spawn, Router, OUTPUT_GRACE};

/// How long inputs and outputs that were removed may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a reload waits for the sockets of removed inputs to close: readers need moments, except under a flood of
/// datagrams.
const UNBIND: Duration = Duration::from_secs(1);

/// For connections whose input has a successor on the same socket: they end when their clients or the router do.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 86_400);

/// Between two looks whether somebody still holds the routes that were replaced: as long as it takes to end a batch.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a reload has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Inputs and outputs that went on.
    pub kept: usize,
    /// Inputs and outputs that were opened.
    pub opened: usize,
    /// Inputs and outputs that end now, within 5 seconds.
    pub removed: usize,
}

impl std::fmt::Display for Reloaded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} kept, {} opened, {} removed", self.kept, self.opened, self.removed)
    }
}

/// The outputs of a configuration, each with its matchers, some of them open already.
pub(super) struct Plan {
    places: Vec<(Vec<Matcher>, Place)>,
}

enum Place {
    /// The number of an output that is open.
    Open(usize),
    New(OpenOutput),
}

impl Router {
    /// Goes on with another configuration, and loses no message by that.
    ///
    /// Inputs and outputs whose settings are the same go on as they are, with their sockets, connections and queues, and
    /// with their place in the counters. An input with other settings on the same address takes over the socket; the
    /// connections it has go on with the old settings until they end; so does every input with TLS, whose certificate may
    /// have been renewed. New ones are opened. Routes hold from the next
    /// batch on. What is not in the configuration ends in the background, within 5 seconds: an input reads its
    /// connections to their end, an output writes what it has; what they have counted stays in the counters.
    ///
    /// The admin server and the reports follow the configuration too.
    ///
    /// An output that calls a function is like no other: it is always opened anew, and the one before ends.
    ///
    /// # Errors
    /// Says which input or output cannot be opened, and why. Then nothing has changed.
    pub fn reload(&mut self, config: Config) -> Result<Reloaded, RouterError> {
        self.sweep();
        let sources = self.inputs_of(config.inputs)?;
        let address = |source: &Source| match source {
            Source::Open(number) => self.inputs[*number].state.address.clone(),
            Source::New(input, _) => input.state.address.clone(),
        };
        let addresses: Vec<String> = sources.iter().map(address).collect();
        refuse_circles(&config.routes, addresses.iter().map(String::as_str))?;
        let servants = self.servants(config.admin, config.report_every)?;
        let plan = Plan::of(config.routes, &self.outputs)?;
        let reloaded = self.change(plan, sources)?;
        self.employ(servants);
        Ok(reloaded)
    }

    /// Forgets what has come to its end since the last time.
    fn sweep(&mut self) {
        self.succeeded.retain(|input| !input.is_over());
        self.draining.retain(|drain| !drain.is_finished());
        self.overview.sum_up();
    }

    /// The inputs of a configuration: the numbers of those that are open, and others that were opened.
    fn inputs_of(&self, inputs: Vec<Input>) -> Result<Vec<Source>, RouterError> {
        if inputs.is_empty() {
            return Err(RouterError::NoInput);
        }
        let mut free: Vec<usize> = (0..self.inputs.len()).collect();
        let mut take = |is: &dyn Fn(&OpenInput) -> bool| {
            let place = free.iter().position(|&number| is(&self.inputs[number]))?;
            Some(free.remove(place))
        };
        // The same ones first: none of them must be taken for the predecessor of another.
        let same: Vec<_> = inputs.iter().map(|input| take(&|open| open.settings == *input)).collect();
        inputs
            .into_iter()
            .zip(same)
            .map(|(input, same)| match same {
                // Where its certificate is says nothing of whether that was renewed: it is read again.
                Some(number) if !input.is_encrypted() => Ok(Source::Open(number)),
                same => {
                    let before = same.or_else(|| take(&|open| open.settings.address == input.address));
                    let socket = before.and_then(|number| self.inputs[number].socket());
                    Ok(Source::New(Box::new(OpenInput::open(input, socket)?), before))
                }
            })
            .collect()
    }

    fn change(&mut self, plan: Plan, sources: Vec<Source>) -> Result<Reloaded, RouterError> {
        let (routes, outputs) = plan.routes(&self.outputs);
        let before = self.dispatch.replace(Arc::new(routes));
        let mut sources = sources;
        for source in &mut sources {
            if let Source::New(input, _) = source {
                if let Err(error) = input.start(&self.dispatch) {
                    self.undo(before, sources);
                    return Err(error);
                }
            }
        }
        let mut reloaded = Reloaded::default();
        let succeeded = self.succeeded.len();
        let inputs = self.replace_inputs(sources, &mut reloaded);
        let outputs = self.replace_outputs(outputs, &mut reloaded);
        let gone: Vec<&OpenInput> = self.succeeded.iter().skip(succeeded).chain(&inputs).collect();
        self.publish((&gone, &outputs.iter().collect::<Vec<_>>()));
        self.drain(before, inputs, outputs);
        Ok(reloaded)
    }

    /// The system has no thread for another input: everything is as it was. What has come meanwhile goes where it would
    /// have gone.
    #[cold]
    fn undo(&mut self, before: Arc<Routes>, sources: Vec<Source>) {
        self.dispatch.replace(before);
        for source in sources {
            if let Source::New(mut input, _) = source {
                let now = Instant::now();
                input.request_stop(now);
                input.wait_read(now);
                input.close();
                self.overview.add_input(&input);
            }
        }
    }

    /// Puts the inputs in their places; those that are no more.
    fn replace_inputs(&mut self, sources: Vec<Source>, reloaded: &mut Reloaded) -> Vec<OpenInput> {
        let mut before: Vec<Option<OpenInput>> = self.inputs.drain(..).map(Some).collect();
        for source in sources {
            match source {
                Source::Open(number) => {
                    reloaded.kept += 1;
                    self.inputs.extend(before[number].take());
                }
                Source::New(input, predecessor) => {
                    reloaded.opened += 1;
                    self.inputs.push(*input);
                    if let Some(mut predecessor) = predecessor.and_then(|number| before[number].take()) {
                        reloaded.removed += 1;
                        predecessor.supersede(Instant::now() + NO_DEADLINE);
                        predecessor.wait_unbound(Instant::now());
                        self.succeeded.push(predecessor);
                    }
                }
            }
        }
        self.addresses = self.inputs.iter().map(|input| input.state.address.clone()).collect();
        let removed: Vec<OpenInput> = before.into_iter().flatten().collect();
        reloaded.removed += removed.len();
        removed
    }

    /// Puts the outputs in their places; those that are no more.
    fn replace_outputs(&mut self, places: Vec<Place>, reloaded: &mut Reloaded) -> Vec<OpenOutput> {
        let mut before: Vec<Option<OpenOutput>> = self.outputs.drain(..).map(Some).collect();
        for place in places {
            match place {
                Place::Open(number) => {
                    reloaded.kept += 1;
                    self.outputs.extend(before[number].take());
                }
                Place::New(output) => {
                    reloaded.opened += 1;
                    self.outputs.push(output);
                }
            }
        }
        let removed: Vec<OpenOutput> = before.into_iter().flatten().collect();
        reloaded.removed += removed.len();
        removed
    }

    fn drain(&mut self, before: Arc<Routes>, mut inputs: Vec<OpenInput>, outputs: Vec<OpenOutput>) {
        let deadline = Instant::now() + DRAIN;
        inputs.iter().for_each(|input| input.request_stop(deadline));
        // The next configuration may have them again.
        inputs.iter_mut().for_each(|input| input.wait_unbound(Instant::now() + UNBIND));
        if inputs.is_empty() && outputs.is_empty() {
            return;
        }
        let drained = spawn("metlog-drain", move || drain(before, inputs, outputs, deadline));
        // Without a thread they end by themselves: outputs by being dropped, inputs when they are overdue.
        self.draining.extend(drained.ok());
    }
}

/// An input of a configuration.
enum Source {
    /// The number of one that is open.
    Open(usize),
    /// Another, and the number of the one whose socket it has taken over.
    New(Box<OpenInput>, Option<usize>),
}

fn drain(before: Arc<Routes>, mut inputs: Vec<OpenInput>, mut outputs: Vec<OpenOutput>, deadline: Instant) {
    while Arc::strong_count(&before) > 1 && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
    drop(before);
    // All are told first: one that is stuck must not use up the time of the others.
    let written = deadline.max(Instant::now() + OUTPUT_GRACE);
    outputs.iter_mut().for_each(|output| output.stop(written));
    outputs.iter_mut().for_each(|output| output.wait(written));
    for input in &mut inputs {
        input.wait_read(deadline);
        input.close();
    }
}

impl Plan {
    /// Sorts routes by where they lead, and opens what is not open.
    pub(super) fn of(routes: Vec<Route>, open: &[OpenOutput]) -> Result<Self, RouterError> {
        let mut places: Vec<(Vec<Matcher>, Output)> = Vec::new();
        for Route { matcher, output } in routes {
            match places.iter_mut().find(|(_, place)| place.is_same(&output)) {
                Some((matchers, _)) => matchers.push(matcher),
                None => places.push((vec![matcher], output)),
            }
        }
        let opened = places.into_iter().map(|(matchers, output)| {
            let place = match open.iter().position(|open| open.is(&output)) {
                Some(number) => Place::Open(number),
                None => Place::New(OpenOutput::open(output)?),
            };
            Ok((matchers, place))
        });
        Ok(Plan { places: opened.collect::<Result<_, RouterError>>()? })
    }

    /// The routes, and the outputs that they lead to.
    fn routes(self, open: &[OpenOutput]) -> (Routes, Vec<Place>) {
        let (matchers, places): (Vec<_>, Vec<_>) = self.places.into_iter().unzip();
        let queues = places.iter().map(|place| {
            let queue = match place {
                Place::Open(number) => &open[*number].queue,
                Place::New(output) => &output.queue,
            };
            Arc::clone(queue)
        });
        let outputs = queues.collect();
        (Routes { matchers: matchers.into_iter().map(Matcher::any_of).collect(), outputs }, places)
    }

    /// The same for a router that begins, in which nothing is open.
    pub(super) fn begin(self) -> (Routes, Vec<OpenOutput>) {
        let (routes, places) = self.routes(&[]);
        let outputs = places.into_iter().filter_map(|place| match place {
            Place::New(output) => Some(output),
            Place::Open(_) => None,
        });
        (routes, outputs.collect())
    }
}
