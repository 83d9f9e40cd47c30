//! The programs that are compared, each with ten rules of which the last takes the messages, into a file.

use std::fs;
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::Address;

/// How long a program may take to start.
const START: Duration = Duration::from_secs(20);

/// Nine conditions that hold for no message of the load; the tenth rule is for all.
pub const ABSENT: [&str; 9] =
    ["gauge", "sentry", "cef", "procinfo", "wsgi", "services", "campaign_error", "cmd", "stacktrace"];

/// A program that listens, and the file it writes.
pub struct Program {
    child: Child,
    pub tcp: Address,
    pub unix: Option<Address>,
    pub file: PathBuf,
}

impl Program {
    /// `metlog-router`, with these routes before the one that takes all.
    pub fn ours(program: &Path, directory: &Path, routes: &[String]) -> Result<Program, String> {
        let (port, file, socket) = (free_port()?, directory.join("ours.jsonl"), directory.join("socket"));
        let mut command = Command::new(program);
        command.arg("--quiet");
        for url in [
            format!("tcp://127.0.0.1:{port}"),
            format!("udp://127.0.0.1:{port}"),
            format!("unix://{}", socket.display()),
        ] {
            command.args(["--listen", &url]);
        }
        for route in routes {
            command.args(["--route", route]);
        }
        command.args(["--route", &format!("*=file:{}", file.display())]);
        Program::start(command, port, Some(socket), file)
    }

    /// The routes of the comparison.
    pub fn ten_routes() -> Vec<String> {
        ABSENT.iter().map(|kind| format!("{kind}=null")).collect()
    }

    /// rsyslogd with its JSON parser and as many rules.
    pub fn rsyslog(directory: &Path) -> Result<Program, String> {
        let (port, file) = (free_port()?, directory.join("rsyslog.jsonl"));
        let configuration = directory.join("rsyslog.conf");
        fs::write(&configuration, rsyslog_configuration(port, directory, &file))
            .map_err(|error| format!("{}: {error}", configuration.display()))?;
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(configuration).arg("-i").arg(directory.join("rsyslog.pid"));
        Program::start(command, port, None, file)
    }

    fn start(
        mut command: Command,
        port: u16,
        socket: Option<PathBuf>,
        file: PathBuf,
    ) -> Result<Program, String> {
        let _ = fs::remove_file(&file);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        let child = child.map_err(|error| format!("{name}: {error}"))?;
        let mut program = Program { child, tcp: Address::Tcp(port), unix: socket.map(Address::Unix), file };
        let deadline = Instant::now() + START;
        let listens = || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_err()
        };
        while !listens() {
            let ended = program.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("{name} does not listen"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(program)
    }

    /// How long the file is.
    pub fn written(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// Waits until the file is so long; when it was.
    pub fn wait_for(&self, bytes: u64, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while self.written() < bytes {
            if Instant::now() > deadline {
                return Err(format!("{}: {} of {bytes} bytes", self.file.display(), self.written()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it; the CPU time of its whole life, in seconds.
    pub fn finish(self) -> Result<f64, String> {
        let pid = self.child.id() as libc::pid_t;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        let mut status = 0;
        // SAFETY: the process is our child and is waited for nowhere else; `usage` has room for what is written, and all
        // zeroes is a valid `rusage` if nothing is.
        let (ended, usage) = unsafe {
            libc::kill(pid, libc::SIGTERM);
            (libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()), usage.assume_init())
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        (ended == pid)
            .then(|| seconds(usage.ru_utime) + seconds(usage.ru_stime))
            .ok_or_else(|| format!("process {pid} cannot be waited for"))
    }
}

/// A port that nothing listens on: for both kinds of sockets, because a program gets the same one for both.
fn free_port() -> Result<u16, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

fn rsyslog_configuration(port: u16, directory: &Path, file: &Path) -> String {
    let rules: String =
        ABSENT.iter().map(|kind| format!("    if $!type == \"{kind}\" then {{ stop }}\n")).collect();
    let (directory, file) = (directory.display(), file.display());
    format!(
        r#"
global(maxMessageSize="64k" workDirectory="{directory}")
main_queue(queue.size="100000" queue.dequeueBatchSize="1024" queue.workerThreads="2")
module(load="imudp")
module(load="imtcp")
module(load="mmjsonparse")
template(name="json" type="list") {{ property(name="$!all-json") constant(value="\n") }}
ruleset(name="metlog" queue.type="LinkedList" queue.size="200000" queue.dequeueBatchSize="1024") {{
    action(type="mmjsonparse" cookie="" useRawMsg="on")
{rules}    action(type="omfile" file="{file}" template="json" ioBufferSize="64k" flushOnTXEnd="on")
}}
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="metlog" rcvbufSize="8m")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="metlog" supportOctetCountedFraming="on")
"#
    )
}
