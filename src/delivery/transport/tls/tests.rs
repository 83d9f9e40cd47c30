//! What TLS does to a stream: nothing that its receiver could see. The other side is a `rustls` server, made by hand.

use std::net::TcpListener;
use std::thread::JoinHandle;

use rcgen::{generate_simple_self_signed, CertifiedKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::super::batch::Batch;
use super::super::support::{at_once, batch_of, deliver, soon, Directory};
use super::super::Transport;
use super::*;

/// A receiver with a certificate for `localhost`, and a client that trusts it.
fn listening(directory: &Directory) -> (TcpListener, Arc<ServerConfig>, Tls) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let path = directory.file("cert");
    std::fs::write(&path, cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("tls://localhost:{port}?ca={}", path.display());
    (listener, Arc::new(server), Stream::new(connector(&address), Framing::Newline))
}

fn connector(address: &str) -> TlsConnector {
    let address: Address = address.parse().unwrap();
    let Address::Tls { host, port, tls, .. } = &address else { panic!("{address}") };
    TlsConnector::to(&address, (host, *port), tls).unwrap()
}

fn accepted(listener: &TcpListener, server: Arc<ServerConfig>) -> StreamOwned<ServerConnection, TcpStream> {
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    StreamOwned::new(ServerConnection::new(server).unwrap(), stream)
}

/// Accepts one connection and reads it to its end, in pieces of `piece` bytes.
fn reading(
    listener: TcpListener,
    server: Arc<ServerConfig>,
    piece: usize,
) -> JoinHandle<io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut peer = accepted(&listener, server);
        let (mut read, mut space) = (Vec::new(), vec![0; piece]);
        loop {
            match peer.read(&mut space)? {
                0 => {
                    // After the goodbye, TCP's own end.
                    assert_eq!(peer.sock.read(&mut [0])?, 0);
                    return Ok(read);
                }
                count => read.extend_from_slice(&space[..count]),
            }
        }
    })
}

fn large() -> Batch {
    batch_of(Framing::Newline, &(0..200).map(|n| format!("{n} {}", "x".repeat(60_000))).collect::<Vec<_>>())
}

#[test]
fn a_large_batch_arrives_byte_for_byte_in_front_of_a_slow_reader_and_a_clean_end() {
    let directory = Directory::new();
    let (listener, server, mut transport) = listening(&directory);
    let reader = reading(listener, server, 777);
    let mut batch = large();
    let sent = batch.remaining().to_vec();
    deliver_slowly(&mut transport, &mut batch);
    assert_eq!(batch.take_account(), (200, vec![]));
    transport.close(soon()).unwrap();
    // An end without a goodbye would be an error here.
    assert!(reader.join().unwrap().unwrap() == sent);
}

/// In calls that are each too short.
fn deliver_slowly(transport: &mut Tls, batch: &mut Batch) {
    let limit = soon();
    while !batch.is_empty() {
        match transport.send(batch, Instant::now() + Duration::from_millis(3)) {
            Err(error) if !socket::is_deadline(&error) => panic!("{error}"),
            _ => assert!(Instant::now() < limit),
        }
    }
}

#[test]
fn a_handshake_that_takes_longer_than_a_call_is_gone_on_with() {
    let directory = Directory::new();
    let (listener, server, mut transport) = listening(&directory);
    let mut batch = batch_of(Framing::Newline, &["one"]);
    for _ in 0..3 {
        assert!(socket::is_deadline(&transport.send(&mut batch, at_once()).unwrap_err()));
    }
    let reader = reading(listener, server, 1000);
    deliver_slowly(&mut transport, &mut batch);
    transport.close(soon()).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), b"one\n");
}

#[test]
fn nothing_is_delivered_before_the_encrypted_bytes_have_arrived() {
    let directory = Directory::new();
    let (listener, server, mut transport) = listening(&directory);
    #[cfg(unix)]
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let peer = std::thread::spawn(move || {
        let mut peer = accepted(&listener, server);
        let mut first = [0; 10];
        peer.read_exact(&mut first).unwrap();
        told.recv().unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        first.len() + rest.len()
    });
    let mut batch = large();
    let length = batch.remaining().len();
    let limit = soon();
    while batch.unconfirmed_bytes() == 0 {
        let _ = transport.send(&mut batch, at_once());
        assert!(Instant::now() < limit);
    }
    for _ in 0..5 {
        let _ = transport.send(&mut batch, at_once());
    }
    // The peer has decrypted one record, and its kernel holds little more.
    assert!(batch.len() > 190, "{} are left", batch.len());
    go_on.send(()).unwrap();
    deliver_slowly(&mut transport, &mut batch);
    transport.close(soon()).unwrap();
    assert_eq!(peer.join().unwrap(), length);
}

#[test]
fn a_peer_that_closes_while_idle_costs_no_message() {
    let directory = Directory::new();
    let (listener, server, mut transport) = listening(&directory);
    let again = listener.try_clone().unwrap();
    let first = reading_one_line(listener, Arc::clone(&server));
    deliver(&mut transport, &mut batch_of(Framing::Newline, &["one"]));
    assert_eq!(first.join().unwrap(), b"one\n");
    let reader = reading(again, server, 1000);
    let mut batch = batch_of(Framing::Newline, &["two"]);
    let limit = soon();
    while !batch.is_empty() {
        // The end of the first connection may be seen only by the write that meets it.
        let _ = transport.send(&mut batch, soon());
        assert!(Instant::now() < limit);
    }
    transport.close(soon()).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), b"two\n");
}

/// Reads a line, says goodbye and closes.
fn reading_one_line(listener: TcpListener, server: Arc<ServerConfig>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut peer = accepted(&listener, server);
        let mut line = [0; 4];
        peer.read_exact(&mut line).unwrap();
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        line.to_vec()
    })
}

#[test]
fn a_peer_that_speaks_no_tls_is_down_and_gets_no_message() {
    let directory = Directory::new();
    let (listener, _, mut transport) = listening(&directory);
    let peer = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        read
    });
    let mut batch = batch_of(Framing::Newline, &["a secret"]);
    let error = transport.send(&mut batch, soon()).unwrap_err();
    assert!(error.to_string().starts_with("TLS: ") && !socket::is_deadline(&error), "{error}");
    assert_eq!(batch.len(), 1);
    drop(transport);
    let read = peer.join().unwrap();
    assert!(read[0] == 0x16 && !read.windows(6).any(|window| window == b"secret"));
}

#[test]
fn an_end_without_a_goodbye_is_an_end_however_often_it_is_asked_for() {
    let directory = Directory::new();
    let (listener, server, _) = listening(&directory);
    let address = format!(
        "tls://localhost:{}?ca={}",
        listener.local_addr().unwrap().port(),
        directory.file("cert").display()
    );
    let peer = std::thread::spawn(move || {
        let mut peer = accepted(&listener, server);
        peer.flush().unwrap();
    });
    let mut socket = connector(&address).connect(soon()).unwrap();
    peer.join().unwrap();
    socket::wait(&socket, Ready::Read, soon()).unwrap();
    for _ in 0..3 {
        assert_eq!(socket.read(&mut [0; 100]).unwrap(), 0);
    }
}
