//! `metlog-router`: the router for one machine as a program.
//!
//! In: arguments or a configuration file, signals, and messages on its sockets. Out: messages where the routes say; where
//! it listens and, at the end, its counters on standard error; word to the service manager. SIGINT and SIGTERM end it;
//! what clients send until the drain deadline is still taken. Lost here: what a second signal cuts off.

mod arguments;
mod descriptors;
mod events;
mod notify;
#[cfg(feature = "spool")]
mod spool;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use tracing_metlog::router::{
    Color, Config, ConsoleFormat, ConsoleOutput, Counters, Input, Matcher, Reloaded, Route, Router,
};

use events::{Event, Events};
use notify::Service;

/// Between two looks into the directories of crash rings.
const ADOPT_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = arguments::command().get_matches();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report(&format!("metlog-router: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn dispatch(arguments: &ArgMatches) -> Result<bool, Box<dyn Error>> {
    #[cfg(feature = "spool")]
    if let Some(("spool", arguments)) = arguments.subcommand() {
        return spool::run(arguments);
    }
    if arguments.get_flag("print-default") {
        return print(&Config::default_toml());
    }
    if arguments.get_flag("print-reference") {
        return print(&Config::reference());
    }
    let config = config(arguments)?;
    if arguments.get_flag("check") {
        return print(&format!("{config}\n"));
    }
    run(arguments, config).map(|()| true)
}

fn print(text: &str) -> Result<bool, Box<dyn Error>> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}

/// What file or arguments say.
fn config(arguments: &ArgMatches) -> Result<Config, Box<dyn Error>> {
    let mut config = match file(arguments) {
        Some(path) => Config::read(path)?,
        None => config_of_arguments(arguments)?,
    };
    if let Some(admin) = arguments.get_one::<String>("admin") {
        config = config.admin(admin);
    }
    Ok(config)
}

fn file(arguments: &ArgMatches) -> Option<&Path> {
    arguments.get_one::<PathBuf>("config").map(PathBuf::as_path)
}

fn config_of_arguments(arguments: &ArgMatches) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::default();
    if let Some(inputs) = inputs(arguments) {
        config.inputs = inputs;
    }
    let console = console(arguments);
    config.routes = match arguments.get_many::<String>("route") {
        Some(routes) => routes.map(|text| text.parse()).collect::<Result<_, _>>()?,
        None => vec![Route::new(Matcher::any(), console.clone().into())],
    };
    let mut is_shown = false;
    for route in config.routes.iter_mut().filter(|route| route.output.to_string() == "console") {
        is_shown = true;
        route.output = console.clone().into();
    }
    let option = ["json", "filter"]
        .into_iter()
        .find(|name| arguments.value_source(name) == Some(clap::parser::ValueSource::CommandLine));
    match option {
        Some(option) if !is_shown => {
            Err(format!("--{option} is for the console, and no --route leads there").into())
        }
        _ => Ok(config),
    }
}

/// The console as the arguments want it.
fn console(arguments: &ArgMatches) -> ConsoleOutput {
    let format = if arguments.get_flag("json") { ConsoleFormat::Json } else { ConsoleFormat::Text };
    let console = ConsoleOutput::new()
        .color(arguments.get_one::<Color>("color").copied().unwrap_or_default())
        .format(format)
        .summary(!arguments.get_flag("quiet"));
    match arguments.get_one::<Matcher>("filter") {
        Some(filter) => console.filter(filter.clone()),
        None => console,
    }
}

/// Where to listen, when anything was said about it.
fn inputs(arguments: &ArgMatches) -> Option<Vec<Input>> {
    let given = |name| arguments.try_get_many::<Input>(name).ok().flatten();
    let inputs: Vec<Input> = ["listen", "http"].into_iter().filter_map(given).flatten().cloned().collect();
    (!inputs.is_empty()).then_some(inputs)
}

fn run(arguments: &ArgMatches, config: Config) -> Result<(), Box<dyn Error>> {
    descriptors::raise_limit();
    // Before the first message can arrive: a signal from here on is a clean end.
    let events = Events::catch()?;
    let (service, problem) = Service::from_environment();
    if let Some(problem) = problem {
        report(&format!("metlog-router: {problem}"));
    }
    let drain_deadline = config.drain_deadline;
    let router = Router::start(config)?;
    let mut program = Program { arguments, router, service, drain_deadline };
    program.say_where();
    program.serve(&events);
    program.end();
    Ok(())
}

/// The running program.
struct Program<'a> {
    arguments: &'a ArgMatches,
    router: Router,
    service: Service,
    drain_deadline: Duration,
}

impl Program<'_> {
    fn is_quiet(&self) -> bool {
        self.arguments.get_flag("quiet")
    }

    fn say_where(&self) {
        if !self.is_quiet() {
            for address in self.router.addresses() {
                report(&format!("metlog-router listens on {address}"));
            }
            #[cfg(feature = "http")]
            if let Some(address) = self.router.admin_address() {
                report(&format!("metlog-router serves http://{address}/metrics and /healthz"));
            }
        }
        self.say_ready();
    }

    fn say_ready(&self) {
        self.service.ready(&format!("listens on {}", self.router.addresses().join(", ")));
    }

    /// Does what it is told until it is told to end, and looks after crashed programs meanwhile.
    fn serve(&mut self, events: &Events) {
        // On a terminal and without a file, SIGHUP is word that the terminal has gone.
        let ends_on_hangup = file(self.arguments).is_none() && std::io::stdin().is_terminal();
        let directories = adopted_directories(self.arguments);
        let adopt_every = (!directories.is_empty()).then_some(ADOPT_EVERY);
        let patience = adopt_every.into_iter().chain(self.service.watchdog()).min();
        let mut adopt_at = adopt_every.map(|_| Instant::now());
        loop {
            if adopt_at.is_some_and(|due| due <= Instant::now()) {
                self.adopt(&directories);
                adopt_at = Some(Instant::now() + ADOPT_EVERY);
            }
            if self.service.watchdog().is_some() {
                // Whether the router's own locks can still be had: a router that is stuck is to be ended.
                let _ = self.router.counters();
                self.service.alive();
            }
            match events.next(patience) {
                Some(Event::End) => return,
                Some(Event::Reload) if ends_on_hangup => return,
                Some(Event::Reload) => self.reload(),
                None => {}
            }
        }
    }

    /// Reads the file again, if there is one, and has files opened again. A file with errors changes nothing.
    fn reload(&mut self) {
        self.service.reloading();
        if let Some(path) = file(self.arguments) {
            match self.reload_file() {
                Ok(reloaded) => {
                    self.say(&format!("metlog-router: {} is read again: {reloaded}", path.display()));
                }
                Err(error) => report(&format!("metlog-router: everything stays as it was: {error}")),
            }
        }
        self.router.reopen();
        self.say_ready();
    }

    fn reload_file(&mut self) -> Result<Reloaded, Box<dyn Error>> {
        let config = config(self.arguments)?;
        let drain_deadline = config.drain_deadline;
        let reloaded = self.router.reload(config)?;
        self.drain_deadline = drain_deadline;
        Ok(reloaded)
    }

    fn say(&self, text: &str) {
        if !self.is_quiet() {
            report(text);
        }
    }

    #[cfg(feature = "ring")]
    fn adopt(&self, directories: &[&Path]) {
        for directory in directories {
            let adopted = self.router.adopt(directory);
            if adopted.messages > 0 || adopted.damaged > 0 {
                let (messages, damaged) = (adopted.messages, adopted.damaged);
                let directory = directory.display();
                self.say(&format!(
                    "metlog-router: {messages} messages, {damaged} damaged, from rings in {directory}"
                ));
            }
        }
    }

    #[cfg(not(feature = "ring"))]
    fn adopt(&self, _: &[&Path]) {}

    /// Drains and says what became of everything.
    fn end(self) {
        self.service.stopping();
        let is_quiet = self.is_quiet();
        let counters = self.router.shutdown(self.drain_deadline);
        if !is_quiet {
            report(&counters.to_string());
        }
        if let Some(left) = left(&counters) {
            report(&format!("metlog-router: not written within {:?}: {left}", self.drain_deadline));
        }
    }
}

/// What outputs have not written at the end, if there is any.
fn left(counters: &Counters) -> Option<String> {
    let outputs = counters.outputs.iter().filter(|output| output.queued > 0);
    let left: Vec<String> =
        outputs.map(|output| format!("{} messages of {}", output.queued, output.name)).collect();
    (!left.is_empty()).then(|| left.join(", "))
}

#[cfg(feature = "ring")]
fn adopted_directories(arguments: &ArgMatches) -> Vec<&Path> {
    arguments.get_many::<PathBuf>("adopt").into_iter().flatten().map(PathBuf::as_path).collect()
}

#[cfg(not(feature = "ring"))]
fn adopted_directories(_: &ArgMatches) -> Vec<&Path> {
    Vec::new()
}

/// To standard error, and nothing more when that is closed: a router does not end for want of a listener.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
