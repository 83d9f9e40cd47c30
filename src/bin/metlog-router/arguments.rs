//! The command line. In: nothing. Out: what clap needs to know of it.

use std::path::PathBuf;

use clap::{value_parser, Arg, ArgAction, Command};
use tracing_metlog::router::{Color, Input, Matcher, Route};

const AFTER_HELP: &str = "\
A message goes to every route whose types match, and once to each output.

With a file, SIGHUP has it read again, and with or without one output files opened again. (Without one, and on a
terminal, SIGHUP says that the terminal has gone: it ends the router as SIGTERM does.)

Examples:
  metlog-router
      UDP and TCP on 127.0.0.1:5565, everything readable on the terminal
  metlog-router --listen udp://0.0.0.0:5565 --route '*=file:/var/log/metlog.jsonl'
      UDP from everywhere, everything as JSON lines in a file
  metlog-router --route oldstyle=console --route timer,counter=file:/tmp/metrics.jsonl
      log lines on the terminal, metrics in a file, the rest counted as unrouted
  metlog-router --print-default > router.toml; metlog-router --config router.toml
      all that and more in a file: several kinds of outputs, limits, conditions

SIGINT and SIGTERM end it: open connections are read for up to 5 seconds (drain_deadline in a file), outputs
are written out, and the counters are printed to standard error. A second signal ends it at once.";

/// The whole of it.
pub fn command() -> Command {
    let command = router_command();
    #[cfg(feature = "spool")]
    let command = command.subcommand(crate::spool::command()).args_conflicts_with_subcommands(true);
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
        .args(config_arguments())
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
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print whole messages on the console, as JSON"))
        .arg(
            Arg::new("filter")
                .long("filter")
                .value_name("EXPR")
                .value_parser(|text: &str| text.parse::<Matcher>())
                .help(
                    "Show only messages on the console that match; Heka's language: \"Severity <= 4 && Logger == 'shop'\"",
                ),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("Do not print where it listens, a line of numbers on the terminal, nor the counters at the end"),
        )
}

#[cfg(feature = "ring")]
fn adopt() -> Option<Arg> {
    let adopt = Arg::new("adopt").long("adopt").value_name("DIR").action(ArgAction::Append);
    Some(adopt.value_parser(value_parser!(PathBuf)).help(
        "Deliver what crashed programs have left in their crash rings in this directory (METLOG_RING),\n\
         now and whenever another one crashes; may be given more than once",
    ))
}

#[cfg(not(feature = "ring"))]
fn adopt() -> Option<Arg> {
    None
}

/// `--http`: a shorter way to say `--listen http://`.
#[cfg(feature = "http")]
fn http_arguments() -> Option<Arg> {
    let argument = Arg::new("http").long("http").value_name("HOST:PORT").action(ArgAction::Append);
    Some(argument.value_parser(|text: &str| format!("http://{text}").parse::<Input>()).help(
        "Take requests here, as --listen http://HOST:PORT does; may be given more than once\n\
         POST with one message a line; 200 says that files and next routers have them, and other outputs their queues",
    ))
}

#[cfg(not(feature = "http"))]
fn http_arguments() -> Option<Arg> {
    None
}

/// What a configuration file says, and what can be said of one.
fn config_arguments() -> [Arg; 5] {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let mut others = vec!["listen", "route", "color", "json", "filter"];
    if cfg!(feature = "http") {
        others.push("http");
    }
    [
        Arg::new("config")
            .long("config")
            .short('c')
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .conflicts_with_all(others)
            .help("Read this TOML file: inputs, outputs and routes. --print-default prints one"),
        flag("check")
            .requires("config")
            .help("Say what the file would do, or what is wrong with it (exit code 1), and open nothing"),
        flag("print-default")
            .conflicts_with("config")
            .help("Print a complete file with comments, which does what no file does"),
        flag("print-reference").hide(true).help("Print docs/router-config.md"),
        Arg::new("admin")
            .long("admin")
            .value_name("HOST:PORT")
            .help("Serve /metrics (for Prometheus) and /healthz here, over HTTP; needs the feature http"),
    ]
}
