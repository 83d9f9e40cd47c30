//! `metlog-router`: the router for one machine as a program.
//!
//! In: arguments, and messages on its sockets. Out: messages where the routes say; where it listens and, at the end,
//! its counters on standard error. SIGINT and SIGTERM end it; what clients send
//! for 5 more seconds is still taken. Lost here: what a second signal cuts off.

mod descriptors;
#[cfg(feature = "spool")]
mod spool;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing_metlog::router::{Color, Config, Input, Matcher, Output, Route, Router};

/// How long a shutdown waits for clients to finish.
const DRAIN: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
A message goes to every route whose types match, and once to each output.

Examples:
  metlog-router
      UDP and TCP on 127.0.0.1:5565, everything readable on the terminal
  metlog-router --listen udp://0.0.0.0:5565 --route '*=file:/var/log/metlog.jsonl'
      UDP from everywhere, everything as JSON lines in a file
  metlog-router --route oldstyle=console --route timer,counter=file:/tmp/metrics.jsonl
      log lines on the terminal, metrics in a file, the rest counted as unrouted

SIGINT and SIGTERM end it: open connections are read for up to 5 seconds, outputs are written out,
and the counters are printed to standard error. A second signal ends it at once.";

fn main() -> ExitCode {
    let arguments = command().get_matches();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("metlog-router: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn dispatch(arguments: &ArgMatches) -> Result<bool, Box<dyn std::error::Error>> {
    #[cfg(feature = "spool")]
    if let Some(("spool", arguments)) = arguments.subcommand() {
        return spool::run(arguments);
    }
    run(arguments).map(|()| true)
}

fn command() -> Command {
    let command = router_command();
    #[cfg(feature = "spool")]
    let command = command.subcommand(spool::command()).args_conflicts_with_subcommands(true);
    command
}

fn router_command() -> Command {
    Command::new("metlog-router")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Receives Metlog messages (JSON, envelope 0.8) and delivers them by type")
        .after_help(AFTER_HELP)
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("URL")
                .action(ArgAction::Append)
                .value_parser(|text: &str| text.parse::<Input>())
                .help(
                    "Listen here; may be given more than once\n\
                     udp://HOST:PORT, tcp://HOST:PORT, unix:///PATH, unixgram:///PATH; port 0 is any free one\n\
                     with the feature http also http://HOST:PORT, with tls also tls://HOST:PORT?cert=/PATH&key=/PATH,\n\
                     with both https://HOST:PORT?..., where &client-ca=/PATH asks clients for certificates\n\
                     with zmq also zmq+tcp://HOST:PORT?handshake=HOST:PORT; with heka all but HTTP and ZeroMQ take Heka's frames,\n\
                     and the options framing=heka, signers=/PATH and require-signature=true\n\
                     [default: udp://127.0.0.1:5565 and tcp://127.0.0.1:5565]",
                ),
        )
        .args(http_arguments())
        .arg(
            Arg::new("route")
                .long("route")
                .value_name("TYPES=OUTPUT")
                .action(ArgAction::Append)
                // Routes cannot be cloned, as clap wants of a value: they are checked here and made in `config`.
                .value_parser(|text: &str| text.parse::<Route>().map(|_| text.to_owned()))
                .help(
                    "Send messages of these types there; may be given more than once\n\
                     TYPES: * or type,type,...   OUTPUT: console, null or file:PATH (JSON lines)\n\
                     [default: *=console]",
                ),
        )
        .args(adopt())
        .arg(
            Arg::new("color")
                .long("color")
                .value_name("WHEN")
                .default_value("auto")
                .hide_default_value(true)
                .value_parser(|text: &str| text.parse::<Color>())
                .help("Colour the console: auto, always, never [default: auto, which respects NO_COLOR]"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("Do not print where it listens, nor the counters at the end"),
        )
}

#[cfg(feature = "ring")]
fn adopt() -> Option<Arg> {
    let adopt = Arg::new("adopt").long("adopt").value_name("DIR").action(ArgAction::Append);
    Some(adopt.value_parser(clap::value_parser!(std::path::PathBuf)).help(
        "Deliver what crashed programs have left in their crash rings in this directory (METLOG_RING),\n\
         now and whenever another one crashes; may be given more than once",
    ))
}

#[cfg(not(feature = "ring"))]
fn adopt() -> Option<Arg> {
    None
}

/// Waits for the first signal, and looks after crashed programs meanwhile.
#[cfg(feature = "ring")]
fn wait(mut signals: Signals, arguments: &ArgMatches, router: &Router) -> std::io::Result<Signals> {
    use std::sync::mpsc::{channel, RecvTimeoutError};

    /// Between two looks into the directories.
    const EVERY: Duration = Duration::from_secs(1);
    let directories: Vec<_> =
        arguments.get_many::<std::path::PathBuf>("adopt").into_iter().flatten().collect();
    let (ended, end) = channel();
    std::thread::Builder::new().name(String::from("signals")).spawn(move || {
        signals.wait();
        let _ = ended.send(signals);
    })?;
    loop {
        for directory in &directories {
            let adopted = router.adopt(directory);
            if !arguments.get_flag("quiet") && (adopted.messages > 0 || adopted.damaged > 0) {
                let (messages, damaged) = (adopted.messages, adopted.damaged);
                let directory = directory.display();
                report(&format!(
                    "metlog-router: {messages} messages, {damaged} damaged, from rings in {directory}"
                ));
            }
        }
        let received = match directories.is_empty() {
            true => end.recv().map_err(RecvTimeoutError::from),
            false => end.recv_timeout(EVERY),
        };
        match received {
            Ok(signals) => return Ok(signals),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(std::io::Error::other("the thread that waits for signals has ended"))
            }
        }
    }
}

#[cfg(not(feature = "ring"))]
fn wait(mut signals: Signals, _: &ArgMatches, _: &Router) -> std::io::Result<Signals> {
    signals.wait();
    Ok(signals)
}

/// `--http`: a shorter way to say `--listen http://`.
#[cfg(feature = "http")]
fn http_arguments() -> Option<Arg> {
    let argument = Arg::new("http").long("http").value_name("HOST:PORT").action(ArgAction::Append);
    Some(argument.value_parser(|text: &str| format!("http://{text}").parse::<Input>()).help(
        "Take requests here, as --listen http://HOST:PORT does; may be given more than once\n\
         POST with one message a line; 200 says that every output has written them",
    ))
}

#[cfg(not(feature = "http"))]
fn http_arguments() -> Option<Arg> {
    None
}

/// Where to listen, when anything was said about it.
fn inputs(arguments: &ArgMatches) -> Option<Vec<Input>> {
    let given = |name| arguments.try_get_many::<Input>(name).ok().flatten();
    let inputs: Vec<Input> = ["listen", "http"].into_iter().filter_map(given).flatten().cloned().collect();
    (!inputs.is_empty()).then_some(inputs)
}

fn run(arguments: &ArgMatches) -> Result<(), Box<dyn std::error::Error>> {
    descriptors::raise_limit();
    // Before the first message can arrive: a signal from here on is a clean end.
    let signals = Signals::catch()?;
    let router = Router::start(config(arguments)?)?;
    let quiet = arguments.get_flag("quiet");
    if !quiet {
        for address in router.addresses() {
            report(&format!("metlog-router listens on {address}"));
        }
    }
    wait(signals, arguments, &router)?.end_on_next();
    let counters = router.shutdown(DRAIN);
    if !quiet {
        report(&counters.to_string());
    }
    Ok(())
}

fn config(arguments: &ArgMatches) -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = Config::default();
    if let Some(inputs) = inputs(arguments) {
        config.inputs = inputs;
    }
    let color = arguments.get_one::<Color>("color").copied().unwrap_or_default();
    config.routes = match arguments.get_many::<String>("route") {
        Some(routes) => routes.map(|text| text.parse()).collect::<Result<_, _>>()?,
        None => vec![Route::new(Matcher::any(), Output::console(color))],
    };
    config.routes.iter_mut().for_each(|route| route.output.color(color));
    Ok(config)
}

/// To standard error, and nothing more when that is closed: a router does not end for want of a listener.
fn report(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(unix)]
struct Signals(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Signals {
    fn catch() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        Ok(Signals(signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?))
    }

    fn wait(&mut self) {
        let _ = self.0.forever().next();
    }

    /// Who asks twice does not want to wait for clients.
    fn end_on_next(mut self) {
        // Without a thread for it a second signal does nothing, and the first one still ends in time.
        let _ = std::thread::Builder::new().spawn(move || {
            self.wait();
            report("metlog-router: ended by a second signal; what was not read or written yet is lost");
            std::process::exit(1);
        });
    }
}

/// Without signals the process runs until it is ended from outside.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Signals)
    }

    fn wait(&mut self) {
        loop {
            std::thread::park();
        }
    }

    fn end_on_next(self) {}
}
