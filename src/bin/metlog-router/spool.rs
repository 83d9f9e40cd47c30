//! `metlog-router spool`: to look into the spool of a program, and to send by hand what is in it.
//!
//! In: a command and a directory. Out: what is there, on standard output. Lost here: nothing but what `send` finds
//! damaged, which it counts.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use tracing_metlog::spool::{self, Slot};
use tracing_metlog::Address;

const ABOUT: &str = "\
Looks into the spool of a program: messages that no router took, on disk (Builder::spool, METLOG_SPOOL)";

const AFTER_HELP: &str = "\
DIR is the directory that the program was given. Each process has a slot in it, a directory with a number. ls, cat and
check change nothing, and may be used while programs run. send leaves out the slots of programs that run: those send
them themselves.

A damaged spool needs no repair before it is used. A program that starts, and send too, skips what is damaged, counts it
(spool_damaged) and keeps the file as *.bad; look at those files, and remove them. docs/spool-format.md in the sources
says what the files look like.

Examples:
  metlog-router spool ls /var/spool/shop
  metlog-router spool cat /var/spool/shop | jq .payload
  metlog-router spool send /var/spool/shop --to tcp://127.0.0.1:5565";

/// The command line of it.
pub fn command() -> Command {
    let directory = || {
        let parser = clap::value_parser!(PathBuf);
        Arg::new("directory")
            .value_name("DIR")
            .required(true)
            .value_parser(parser)
            .help("The spool's directory")
    };
    Command::new("spool")
        .about(ABOUT)
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("ls").about("Lists the slots: messages, bytes, damage").arg(directory()))
        .subcommand(Command::new("cat").about("Prints the messages, one a line, the oldest first").arg(directory()))
        .subcommand(
            Command::new("check")
                .about("Reads every record and says what is damaged; exit code 1 if anything is")
                .arg(directory()),
        )
        .subcommand(
            Command::new("send")
                .about("Sends what programs that have ended left, and removes what has arrived")
                .arg(directory())
                .arg(
                    Arg::new("to")
                        .long("to")
                        .value_name("URL")
                        .required(true)
                        .value_parser(|text: &str| text.parse::<Address>())
                        .help("The router: udp://HOST:PORT, tcp://HOST:PORT, unix:///PATH, file:///PATH, stdout:, ..."),
                )
                .arg(
                    Arg::new("patience")
                        .long("patience")
                        .value_name("SECONDS")
                        .default_value("30")
                        .value_parser(clap::value_parser!(u64).range(1..))
                        .help("How long the router may take nothing before this is given up; the rest stays"),
                ),
        )
}

/// Does what the arguments say. Whether all is well.
pub fn run(arguments: &ArgMatches) -> Result<bool, Box<dyn Error>> {
    let Some((name, arguments)) = arguments.subcommand() else { return Ok(false) };
    let directory = arguments.get_one::<PathBuf>("directory").map_or(Path::new(""), PathBuf::as_path);
    let named = |error: io::Error| format!("spool {}: {error}", directory.display());
    match name {
        "cat" => cat(directory).map_err(named)?,
        "send" => return send(directory, arguments).map_err(|error| named(error).into()),
        _ => {
            let slots = spool::slots(directory).map_err(named)?;
            print(&slots, name == "check").or_else(ignore_closed)?;
            return Ok(name == "ls" || slots.iter().all(|slot| slot.problems.is_empty()));
        }
    }
    Ok(true)
}

fn print(slots: &[Slot], with_problems: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>4}  {:>10}  {:>12}  {:>8}  {:>8}  {:>4}  in use",
        "slot", "messages", "bytes", "segments", "damaged", "bad"
    )?;
    for slot in slots {
        let Slot { number, messages, bytes, segments, damaged, bad_files, .. } = slot;
        let in_use = if slot.in_use { "yes" } else { "no" };
        writeln!(
            out,
            "{number:>4}  {messages:>10}  {bytes:>12}  {segments:>8}  {damaged:>8}  {bad_files:>4}  {in_use}"
        )?;
    }
    for slot in slots.iter().filter(|_| with_problems) {
        for problem in &slot.problems {
            writeln!(out, "{}/{problem}", slot.number)?;
        }
    }
    Ok(())
}

fn cat(directory: &Path) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = spool::messages(directory, |message| {
        out.write_all(message)?;
        out.write_all(b"\n")
    });
    printed.and_then(|()| out.flush()).or_else(ignore_closed)
}

/// Who reads the output may stop reading, as `head` does.
fn ignore_closed(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

fn send(directory: &Path, arguments: &ArgMatches) -> io::Result<bool> {
    let patience = Duration::from_secs(arguments.get_one::<u64>("patience").copied().unwrap_or(30));
    let to = arguments.get_one::<Address>("to").ok_or_else(|| io::Error::other("--to is missing"))?;
    let sent = spool::send(directory, to, patience)?;
    writeln!(io::stderr(), "delivered {}, lost {}", sent.delivered, sent.lost)?;
    let in_use = spool::slots(directory)?.iter().filter(|slot| slot.in_use && slot.messages > 0).count();
    if in_use > 0 {
        writeln!(
            io::stderr(),
            "{in_use} slots with messages are in use by programs that send them themselves"
        )?;
    }
    Ok(true)
}
