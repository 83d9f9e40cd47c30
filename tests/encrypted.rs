//! Delivery over TLS: to our own router and to OpenSSL, with certificates that fit and with others.
#![cfg(all(unix, feature = "tls", feature = "router"))]

mod process_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use process_support::oracle::{assert_accounted, assert_balanced, send, send_all, Got};
use process_support::{built, eventually, lines_of, timed, Directory, LONG};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use tracing_metlog::router::{Config, Input, Matcher, Output, Route, Router};
use tracing_metlog::{Guard, LossReason};

/// Certificates in files: an authority, a server and a client that lead to it, and an authority that nobody leads to.
struct Certificates {
    directory: Directory,
}

impl Certificates {
    fn make() -> Certificates {
        let certificates = Certificates { directory: Directory::new() };
        let authority = |name: &str| {
            let mut params = params(name, &[name]);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
        };
        let (ours, other) = (authority("ours"), authority("other"));
        certificates.write("ca", &ours.pem());
        certificates.write("other-ca", &other.pem());
        for (name, issuer) in
            [("localhost", &ours), ("elsewhere", &ours), ("client", &ours), ("stranger", &other)]
        {
            let key = KeyPair::generate().expect("a key");
            let names = if name == "localhost" { &["localhost", "127.0.0.1"][..] } else { &[name] };
            let signed = params(name, names).signed_by(&key, issuer).expect("signed");
            certificates.write(&format!("{name}-cert"), &signed.pem());
            certificates.write(&format!("{name}-key"), &key.serialize_pem());
        }
        certificates
    }

    fn write(&self, name: &str, pem: &str) {
        std::fs::write(self.path(name), pem).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.file(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Options of an address that trusts `ca`, as `who`.
    fn options(&self, ca: &str, who: Option<&str>) -> String {
        let who = who.map(|who| {
            format!("&cert={}&key={}", self.text(&format!("{who}-cert")), self.text(&format!("{who}-key")))
        });
        format!("?ca={}{}", self.text(ca), who.unwrap_or_default())
    }
}

fn guard(address: &str) -> Guard {
    built(tracing_metlog::builder().router(address).flush_timeout(LONG))
}

/// Our router, writing to a file, on an encrypted input.
fn router(input: Input, certificates: &Certificates, who: &str) -> (Router, String) {
    let input =
        input.tls(certificates.path(&format!("{who}-cert")), certificates.path(&format!("{who}-key")));
    let route = Route::new(Matcher::any(), Output::file(certificates.path("received")));
    let router = Router::start(Config::new().input(input).route(route)).expect("starts");
    let address = router.addresses()[0].clone();
    (router, address)
}

/// A certificate's content. OpenSSL takes one whose issuer has its own name for its own issuer.
fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names = names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Everything arrives, is read and accounted for.
fn arrives(address: &str, router: Router, certificates: &Certificates) {
    let guard = guard(address);
    send_all(&guard.client(), 2, 1_000);
    let stats = guard.finish();
    let counters = router.shutdown(LONG);
    let got = Got::read(&lines_of(&certificates.path("received")));
    got.assert_complete(2, 1_000);
    got.assert_ordered();
    assert_accounted(&stats, &got, 2, 1_000);
    assert_eq!((counters.received, counters.inputs[0].errors), (stats.emitted, 0));
}

/// Nothing arrives, nothing is counted as delivered, and the trouble is named.
fn is_refused(address: &str, why: &str) {
    let guard = guard(address);
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    eventually("it is noticed", || guard.stats().destinations[0].problem.is_some());
    let problem = guard.stats().destinations[0].problem.clone().expect("a problem");
    assert!(problem.contains(why), "{problem:?} does not say {why:?}");
    guard.flush(Duration::from_millis(500));
    let stats = guard.finish();
    assert_balanced(&stats);
    assert_eq!((stats.delivered, stats.lost.count(LossReason::Unreachable)), (0, stats.emitted), "{stats}");
}

fn tls() -> Input {
    Input::tcp("127.0.0.1:0")
}

#[cfg(feature = "http")]
fn https() -> Input {
    Input::http("127.0.0.1:0")
}

#[cfg(feature = "http")]
#[test]
fn https_delivers_to_a_router_that_shows_a_trusted_certificate() {
    let certificates = Certificates::make();
    let (router, address) = router(https(), &certificates, "localhost");
    assert!(address.starts_with("https://"), "{address}");
    let address = format!("{address}/in{}&gzip=true", certificates.options("ca", None));
    arrives(&address, router, &certificates);
}

#[cfg(feature = "http")]
#[test]
fn https_delivers_nothing_to_a_router_that_it_cannot_trust() {
    let certificates = Certificates::make();
    let (localhost, address) = router(https(), &certificates, "localhost");
    is_refused(&format!("{address}/{}", certificates.options("other-ca", None)), "certificate");
    assert_eq!(localhost.shutdown(LONG).received, 0);
    let (elsewhere, address) = router(https(), &certificates, "elsewhere");
    is_refused(&format!("{address}/{}", certificates.options("ca", None)), "certificate");
    assert_eq!(elsewhere.shutdown(LONG).received, 0);
}

#[cfg(feature = "http")]
#[test]
fn https_shows_its_certificate_to_a_router_that_asks_for_one() {
    let certificates = Certificates::make();
    let asking = || {
        let input = https().tls("/", "/").client_ca(certificates.path("ca"));
        router(input, &certificates, "localhost")
    };
    let (router, address) = asking();
    arrives(&format!("{address}/{}", certificates.options("ca", Some("client"))), router, &certificates);
    let (router, address) = asking();
    // The reason may be lost to the broken connection that comes with it.
    is_refused(&format!("{address}/{}", certificates.options("ca", None)), "");
    is_refused(&format!("{address}/{}", certificates.options("ca", Some("stranger"))), "");
    assert_eq!(router.shutdown(LONG).received, 0);
}

#[test]
fn tls_delivers_to_a_router_that_shows_a_trusted_certificate() {
    let certificates = Certificates::make();
    let (router, address) = router(tls(), &certificates, "localhost");
    assert!(address.starts_with("tls://"), "{address}");
    arrives(&format!("{address}{}", certificates.options("ca", None)), router, &certificates);
}

#[test]
fn tls_delivers_nothing_to_a_router_that_it_cannot_trust() {
    let certificates = Certificates::make();
    let (localhost, address) = router(tls(), &certificates, "localhost");
    is_refused(&format!("{address}{}", certificates.options("other-ca", None)), "certificate");
    assert_eq!(localhost.shutdown(LONG).received, 0);
    let (elsewhere, address) = router(tls(), &certificates, "elsewhere");
    is_refused(&format!("{address}{}", certificates.options("ca", None)), "certificate");
    assert_eq!(elsewhere.shutdown(LONG).received, 0);
}

#[test]
fn tls_shows_its_certificate_to_a_router_that_asks_for_one_and_counts_nothing_as_delivered_when_it_is_refused(
) {
    let certificates = Certificates::make();
    let asking = || {
        let input = tls().tls("/", "/").client_ca(certificates.path("ca"));
        router(input, &certificates, "localhost")
    };
    let (router, address) = asking();
    arrives(&format!("{address}{}", certificates.options("ca", Some("client"))), router, &certificates);
    let (router, address) = asking();
    is_refused(&format!("{address}{}", certificates.options("ca", None)), "ertificate");
    is_refused(&format!("{address}{}", certificates.options("ca", Some("stranger"))), "");
    assert_eq!(router.shutdown(LONG).received, 0);
}

#[test]
fn clients_that_speak_no_tls_are_turned_away_and_the_next_is_served() {
    let certificates = Certificates::make();
    let (router, address) = router(tls(), &certificates, "localhost");
    let port = address.rsplit_once(':').expect("a port").1.to_owned();
    for nonsense in ["{\"type\": \"plain\"}\n", "\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\n\r\n", ""] {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connects");
        stream.set_read_timeout(Some(LONG)).expect("set");
        stream.write_all(nonsense.as_bytes()).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        // An alert, perhaps, and then the end.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let guard = guard(&format!("{address}{}", certificates.options("ca", None)));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    let stats = guard.finish();
    assert_eq!((stats.delivered, stats.lost.total()), (stats.emitted, 0), "{stats}");
    let counters = router.shutdown(LONG);
    assert_eq!(
        (counters.received, counters.malformed_total(), counters.inputs[0].errors),
        (stats.emitted, 0, 4)
    );
}

#[test]
fn a_client_that_never_finishes_its_handshake_is_closed() {
    let certificates = Certificates::make();
    let (_router, address) = router(tls(), &certificates, "localhost");
    let port = address.rsplit_once(':').expect("a port").1.to_owned();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connects");
    stream.set_read_timeout(Some(LONG)).expect("set");
    stream.write_all(&[0x16, 3, 1]).expect("sent");
    let (took, end) = timed(|| stream.read(&mut [0]));
    assert_eq!(end.expect("an end"), 0);
    assert!((Duration::from_secs(9)..Duration::from_secs(40)).contains(&took), "{took:?}");
}

/// A process that is killed when its test ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// OpenSSL, by way of Python; see `tls_receiver.py`.
fn openssl(certificates: &Certificates, version: &str, client_ca: &str) -> (Program, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process_support/tls_receiver.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(certificates.path("received"));
    command.args([certificates.text("localhost-cert"), certificates.text("localhost-key")]);
    command.args([version, client_ca]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut port = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("a port");
    (Program(child), format!("tls://localhost:{}", port.trim()))
}

#[test]
fn openssl_gets_every_message_once_and_in_order_whichever_version_it_speaks() {
    for version in ["1.2", "1.3"] {
        let certificates = Certificates::make();
        let (_openssl, address) = openssl(&certificates, version, &certificates.text("ca"));
        let guard = guard(&format!("{address}{}", certificates.options("ca", Some("client"))));
        send_all(&guard.client(), 2, 1_000);
        assert_eq!(guard.flush(LONG).pending, 0);
        let stats = guard.finish();
        let path = certificates.path("received");
        eventually("it is written", || lines_of(&path).len() as u64 == stats.emitted);
        let got = Got::read(&lines_of(&path));
        got.assert_complete(2, 1_000);
        got.assert_ordered();
        assert_accounted(&stats, &got, 2, 1_000);
    }
}

#[test]
fn a_certificate_that_openssl_refuses_after_the_handshake_costs_no_message_unnoticed() {
    for version in ["1.2", "1.3"] {
        let certificates = Certificates::make();
        let (_openssl, address) = openssl(&certificates, version, &certificates.text("ca"));
        is_refused(
            &format!("{address}{}", certificates.options("ca", Some("stranger"))),
            "received fatal alert",
        );
        is_refused(&format!("{address}{}", certificates.options("ca", None)), "received fatal alert");
        assert_eq!(lines_of(&certificates.path("received")), Vec::<String>::new());
    }
}

/// Accepts, keeps what it is sent, and says nothing.
fn silent() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, keeping) = (stream.expect("accepted"), Arc::clone(&keeping));
            std::thread::spawn(move || {
                let mut space = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut space) {
                    keeping.lock().expect("whole").extend_from_slice(&space[..count]);
                }
            });
        }
    });
    (port, heard)
}

#[test]
fn who_does_not_speak_tls_is_told_nothing_and_given_up_after_five_seconds() {
    let certificates = Certificates::make();
    let (port, heard) = silent();
    let guard = guard(&format!("tls://127.0.0.1:{port}{}", certificates.options("ca", None)));
    (0..10).for_each(|n| send(&guard.client(), 0, n));
    let (took, ()) = timed(|| eventually("it fails", || guard.stats().destinations[0].problem.is_some()));
    assert!((Duration::from_secs(4)..Duration::from_secs(25)).contains(&took), "{took:?}");
    let problem = guard.stats().destinations[0].problem.clone().expect("a problem");
    assert!(problem.contains("no TLS handshake within 5 s"), "{problem}");
    let heard = String::from_utf8_lossy(&heard.lock().expect("whole")).into_owned();
    assert!(heard.starts_with('\u{16}') && !heard.contains("message") && !heard.contains("oldstyle"));
    drop(guard);
}

#[test]
fn a_file_that_is_no_certificate_is_an_error_that_names_it() {
    let certificates = Certificates::make();
    certificates.write("nonsense", "nonsense");
    let nonsense = certificates.text("nonsense");
    let client = certificates.text("client-cert");
    let key = certificates.text("localhost-key");
    let schemes: &[&str] = if cfg!(feature = "http") { &["tls", "https"] } else { &["tls"] };
    for scheme in schemes {
        for (options, problem) in [
            (String::from("ca=/nowhere"), String::from("ca \"/nowhere\": ")),
            (format!("ca={nonsense}"), format!("ca {nonsense:?}: no certificate in it")),
            (format!("cert={nonsense}&key={key}"), format!("cert {nonsense:?}: no certificate in it")),
            (format!("cert={client}&key={nonsense}"), format!("key {nonsense:?}: ")),
            (format!("cert={client}&key={key}"), String::from("cert and key do not go together")),
        ] {
            let ca = if options.contains("ca=") {
                String::new()
            } else {
                format!("&ca={}", certificates.text("ca"))
            };
            let address = format!("{scheme}://127.0.0.1:1?{options}{ca}");
            let error = tracing_metlog::builder().router(&address).build().map(drop).expect_err(&address);
            let error = error.to_string();
            assert!(error.contains(&problem) && error.starts_with("Builder::router: "), "{error}");
        }
    }
}
