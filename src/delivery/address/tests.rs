//! What is read as an address, and what an error says.

use super::*;
use proptest::prelude::*;

#[test]
fn every_kind_of_address_is_read() {
    let host = |host: &str| host.to_owned();
    let path = PathBuf::from("/run/metlog router.sock");
    let expected = [
        ("udp://router", Address::Udp { host: host("router"), port: 5565 }),
        ("UDP://router:1/", Address::Udp { host: host("router"), port: 1 }),
        ("udp://[::1]:65535", Address::Udp { host: host("::1"), port: 65535 }),
        ("tcp://[::1]", Address::Tcp { host: host("::1"), port: 5565, framing: Framing::Newline }),
        (
            "tcp://10.0.0.1:514?framing=octet-count",
            Address::Tcp { host: host("10.0.0.1"), port: 514, framing: Framing::OctetCount },
        ),
        #[cfg(unix)]
        (
            "unix:///run/metlog%20router.sock?framing=newline",
            Address::Unix { path: path.clone(), framing: Framing::Newline },
        ),
        #[cfg(unix)]
        ("unixgram:///run/metlog%20router.sock", Address::UnixDatagram { path: path.clone() }),
        ("file:///run/metlog router.sock", Address::File { path }),
        #[cfg(feature = "tls")]
        (
            "tls://router?framing=octet-count&ca=/etc/my%20ca.pem",
            Address::Tls {
                host: host("router"),
                port: 5565,
                framing: Framing::OctetCount,
                tls: TlsFiles { ca: Some("/etc/my ca.pem".into()), ..TlsFiles::default() },
            },
        ),
        #[cfg(feature = "http")]
        (
            "http://router",
            Address::Http {
                secure: false,
                host: host("router"),
                port: 80,
                path: host("/"),
                options: HttpOptions::default(),
            },
        ),
        #[cfg(feature = "http")]
        (
            "http://[::1]:8080/in/%41?gzip=true&content-type=json&batch=1000&timeout=5&header-file=/run/token&header-env=TOKEN",
            Address::Http {
                secure: false,
                host: host("::1"),
                port: 8080,
                path: host("/in/%41"),
                options: HttpOptions {
                    gzip: true,
                    json: true,
                    batch_bytes: 1000,
                    timeout: std::time::Duration::from_secs(5),
                    header_file: Some("/run/token".into()),
                    header_variable: Some(host("TOKEN")),
                    ..HttpOptions::default()
                },
            },
        ),
        #[cfg(all(feature = "http", feature = "tls"))]
        (
            "https://router/?cert=/c&key=/k",
            Address::Http {
                secure: true,
                host: host("router"),
                port: 443,
                path: host("/"),
                options: HttpOptions {
                    tls: TlsFiles { ca: None, cert: Some("/c".into()), key: Some("/k".into()) },
                    ..HttpOptions::default()
                },
            },
        ),
        ("stdout:", Address::Stdout),
        ("stderr://", Address::Stderr),
        ("off", Address::Off),
    ];
    for (text, address) in expected {
        assert_eq!(text.parse(), Ok(address), "{text}");
    }
}

#[test]
fn a_bad_address_says_what_is_wrong_with_it() {
    let expected = [
        ("", "no scheme"),
        ("router", "no scheme"),
        ("stdout", "no scheme"),
        ("router.example:5565", "no scheme"),
        ("127.0.0.1:5565", "no scheme"),
        ("upd://router:5565", "unknown scheme \"upd\""),
        #[cfg(not(feature = "http"))]
        ("http://router", "feature `http`"),
        #[cfg(not(all(feature = "http", feature = "tls")))]
        ("https://router", "feature `http` and `tls`"),
        #[cfg(not(feature = "tls"))]
        ("tls://router:5565", "feature `tls`"),
        ("udp:router:5565", "'//' is missing"),
        ("udp://", "the host is missing"),
        ("udp://:5565", "the host is missing"),
        ("udp://router:", "the port is missing"),
        ("tcp://router:0", "port \"0\" is not a number from 1 to 65535"),
        ("tcp://router:65536", "port \"65536\" is not a number from 1 to 65535"),
        ("tcp://router:+1", "port \"+1\" is not"),
        ("tcp://router:x", "port \"x\" is not"),
        ("udp://::1:5565", "must stand in brackets"),
        ("udp://[::1:5565", "']' is missing"),
        ("udp://[router]:5565", "\"router\" is not an IPv6 address"),
        ("udp://[::1]5565", "\"5565\" after ']'"),
        ("udp://user@router", "'@' in the host"),
        ("udp://router/path", "'/' in the host"),
        ("udp://router :5565", "' ' in the host"),
        ("udp://router:5565\n", "port \"5565\\n\" is not"),
        ("udp://router?framing=newline", "no option is known here, not \"framing=newline\""),
        ("tcp://router?framing=datagram", "framing=newline and framing=octet-count are known"),
        ("tcp://router?framing=newline&framing=newline", "option \"framing=newline&framing=newline\""),
        #[cfg(unix)]
        ("unix://", "the path is missing"),
        #[cfg(unix)]
        ("unix://run/socket", "must be absolute"),
        ("file:/var/log/x", "'//' is missing"),
        ("file:///var/log/x?append", "no option is known here"),
        ("file:///var/log/a#b", "'#' in a path must be written %23"),
        ("file:///var/log/100%", "two hexadecimal digits"),
        ("file:///var/log/%+1", "two hexadecimal digits"),
        ("file:///var/log/%é", "two hexadecimal digits"),
        ("file:///var/log/%00", "a zero byte in the path"),
        #[cfg(feature = "http")]
        ("http:router", "'//' is missing"),
        #[cfg(feature = "http")]
        ("http://", "the host is missing"),
        #[cfg(feature = "http")]
        ("http://router/a b", "' ' in the path"),
        #[cfg(feature = "http")]
        ("http://router/%g1", "two hexadecimal digits"),
        #[cfg(feature = "http")]
        ("http://router/#x", "'#' in the path"),
        #[cfg(feature = "http")]
        ("http://user@router/", "belong into header-file or header-env"),
        #[cfg(feature = "http")]
        ("http://router/?gzip", "option \"gzip\" is not name=value"),
        #[cfg(feature = "http")]
        ("http://router/?gzip=yes", "true and false are accepted"),
        #[cfg(feature = "http")]
        ("http://router/?gzip=true&gzip=true", "option \"gzip\" stands there twice"),
        #[cfg(feature = "http")]
        ("http://router/?gzp=true", "option \"gzp\", where gzip, content-type, batch, timeout"),
        #[cfg(feature = "http")]
        ("http://router/?content-type=text", "where ndjson and json are accepted"),
        #[cfg(feature = "http")]
        ("http://router/?batch=0", "a number from 1 to 1073741824"),
        #[cfg(feature = "http")]
        ("http://router/?timeout=+5", "a number from 1 to 3600"),
        #[cfg(feature = "http")]
        ("http://router/?header-file=token", "an absolute path is accepted"),
        #[cfg(feature = "http")]
        ("http://router/?header-env=A-B", "the name of a variable is accepted"),
        #[cfg(feature = "http")]
        ("http://router/?ca=/ca.pem", "option \"ca\", where"),
        #[cfg(feature = "tls")]
        ("tls://router?cert=/c", "one stands there without the other"),
        #[cfg(feature = "tls")]
        ("tls://router?framing=datagram", "newline and octet-count are known"),
        #[cfg(feature = "tls")]
        ("tls://router?gzip=true", "option \"gzip\", where framing, ca, cert and key are known"),
        ("stdout:x", "\"x\" after the scheme"),
    ];
    for (text, problem) in expected {
        let message = text.parse::<Address>().unwrap_err().to_string();
        assert!(message.starts_with(&format!("router address {text:?}: ")), "{message}");
        assert!(message.contains(problem), "{text:?}: {message:?} does not say {problem:?}");
        assert!(message.ends_with("stdout:, stderr: and off"), "{message}");
    }
}

#[test]
fn an_error_never_shows_a_password() {
    for text in [
        "http://user:secret@router/",
        "tcp://user:secret@router:1",
        "user:secret@router",
        "upd://a:secret@b?x",
    ] {
        let message = text.parse::<Address>().unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn a_path_too_long_for_a_socket_is_refused_where_it_is_read() {
    let long = format!("unix:///{}", "x".repeat(200));
    assert!(long.parse::<Address>().is_err());
}

#[cfg(unix)]
fn any_path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(1u8.., 1..80)
        .prop_map(|bytes| path_of([b"/x".as_slice(), &bytes].concat()).unwrap())
}

#[cfg(unix)]
fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_.-]{1,30}",
        any::<[u16; 8]>().prop_map(|parts| Ipv6Addr::from(parts).to_string()),
        any::<[u8; 4]>().prop_map(|parts| std::net::Ipv4Addr::from(parts).to_string()),
    ]
}

#[cfg(all(unix, feature = "tls"))]
fn any_tls() -> impl Strategy<Value = TlsFiles> {
    let identity = prop::option::of((any_path(), any_path()));
    (prop::option::of(any_path()), identity).prop_map(|(ca, identity)| {
        let (cert, key) = identity.unzip();
        TlsFiles { ca, cert, key }
    })
}

#[cfg(all(unix, feature = "http"))]
fn any_http_options() -> impl Strategy<Value = HttpOptions> {
    let file = prop::option::of(any_path());
    (any::<(bool, bool)>(), 1usize..1 << 30, 1u64..3600, file, prop::option::of("[A-Za-z0-9_]{1,20}"))
        .prop_map(|((gzip, json), batch_bytes, seconds, header_file, header_variable)| HttpOptions {
            gzip,
            json,
            batch_bytes,
            timeout: std::time::Duration::from_secs(seconds),
            header_file,
            header_variable,
            tls: TlsFiles::default(),
        })
}

#[cfg(unix)]
fn any_address() -> impl Strategy<Value = Address> {
    let framing = || prop_oneof![Just(Framing::Newline), Just(Framing::OctetCount)];
    let kinds = vec![
        (any_host(), 1u16..).prop_map(|(host, port)| Address::Udp { host, port }).boxed(),
        (any_host(), 1u16.., framing())
            .prop_map(|(host, port, framing)| Address::Tcp { host, port, framing })
            .boxed(),
        (any_path(), framing()).prop_map(|(path, framing)| Address::Unix { path, framing }).boxed(),
        any_path().prop_map(|path| Address::UnixDatagram { path }).boxed(),
        any_path().prop_map(|path| Address::File { path }).boxed(),
        #[cfg(feature = "tls")]
        (any_host(), 1u16.., framing(), any_tls())
            .prop_map(|(host, port, framing, tls)| Address::Tls { host, port, framing, tls })
            .boxed(),
        #[cfg(feature = "http")]
        (any_host(), 1u16.., "/[a-z./:@!$&'()*+,;=~_-]{0,20}(%[0-9A-F]{2})?", any_http_options())
            .prop_map(|(host, port, path, options)| Address::Http {
                secure: false,
                host,
                port,
                path,
                options,
            })
            .boxed(),
        Just(Address::Stdout).boxed(),
        Just(Address::Stderr).boxed(),
        Just(Address::Off).boxed(),
    ];
    prop::strategy::Union::new(kinds)
}

proptest! {
    #[cfg(unix)]
    #[test]
    fn an_address_written_is_the_address_read(address in any_address()) {
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(udp|tcp|tls|https?|unix|file)?:?/{0,3}\\PC{0,20}") {
        let _ = text.parse::<Address>();
    }
}

#[cfg(all(feature = "heka", unix))]
#[test]
fn an_address_of_a_receiver_of_frames_is_written_as_it_is_read() {
    let signed = |name: &str, version, hash, place| HekaOptions {
        signer: Some(HekaKey { name: name.to_owned(), version, hash, place }),
    };
    let key = || KeyPlace::File("/run/my key".into());
    let variable = || KeyPlace::Variable(String::from("KEY"));
    for (text, over, options) in [
        ("udp://router:1?framing=heka", "udp://router:1", HekaOptions::default()),
        (
            "tcp://[::1]:1?framing=heka&signer=ops&key-file=/run/my%20key",
            "tcp://[::1]:1",
            signed("ops", 1, HmacHash::Sha1, key()),
        ),
        (
            "unix:///run/a%20b?framing=heka&signer=a.b-c_9&key-version=0&hmac=md5&key-env=KEY",
            "unix:///run/a%20b",
            signed("a.b-c_9", 0, HmacHash::Md5, variable()),
        ),
        #[cfg(feature = "tls")]
        (
            "tls://router:1?ca=/ca&framing=heka&signer=ops&key-env=KEY",
            "tls://router:1?ca=/ca",
            signed("ops", 1, HmacHash::Sha1, variable()),
        ),
    ] {
        let over = Box::new(over.parse().expect(over));
        let address: Address = text.parse().expect(text);
        assert_eq!(address, Address::Heka { over, options });
        assert_eq!(address.to_string(), text);
        // It opens with Heka's framing, and datagrams are as short as hekad needs them.
        let transport = over_heka(&address);
        let most = if text.starts_with("udp") { 8_192 } else { usize::MAX };
        assert_eq!((transport.framing(), transport.max_message_bytes()), (Framing::Heka, most), "{text}");
    }
}

#[cfg(all(feature = "heka", unix))]
fn over_heka(address: &Address) -> Box<dyn crate::Transport> {
    match address {
        // Its certificates would be read.
        Address::Heka { over, .. } if matches!(**over, Address::Tls { .. }) => {
            "tcp://router?framing=heka".parse::<Address>().expect("an address")
        }
        other => other.clone(),
    }
    .open(crate::delivery::transport::Limits::default())
    .expect("opens")
    .expect("a transport")
}

#[cfg(feature = "heka")]
#[test]
fn an_option_of_frames_that_is_wrong_is_named() {
    for (text, problem) in [
        ("stdout:?framing=heka", "and \"stdout\" does not"),
        ("http://router?framing=heka", "and \"http\" does not"),
        ("udp://router?framing=heka&signer=ops", "stand together or not at all"),
        ("udp://router?framing=heka&key-file=/key", "stand together or not at all"),
        ("udp://router?framing=heka&hmac=md5", "stand together or not at all"),
        ("udp://router?framing=heka&signer=o%20s&key-env=K", "letters, digits"),
        ("udp://router?framing=heka&signer=ops&key-env=K&key-file=/k", "both stand there"),
        ("udp://router?framing=heka&signer=ops&key-env=K&hmac=sha2", "sha1 and md5"),
        ("udp://router?framing=heka&signer=ops&key-env=K&key-version=x", "a number from 0 to 4294967295"),
        ("udp://router?framing=heka&gzip=true", "no option is known here"),
        ("udp://router?signer=ops&key-env=K", "no option is known here"),
    ] {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[cfg(feature = "zmq")]
#[test]
fn an_address_of_a_zeromq_receiver_is_written_as_it_is_read() {
    let read = |text: &str| match text.parse::<Address>() {
        Ok(Address::Zmq { options, .. }) => options,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(read("zmq://router"), ZmqOptions::default());
    assert_eq!("zmq://router".parse::<Address>().expect("an address").to_string(), "zmq+tcp://router:5565");
    let text = "zmq+tcp://[::1]:1?handshake=[::1]:5180&handshake-timeout=1000&livecheck=3&spill=stderr&hwm=7";
    let expected = ZmqOptions {
        handshake: Some((String::from("::1"), 5180)),
        handshake_timeout: std::time::Duration::from_secs(1),
        livecheck: std::time::Duration::from_secs(3),
        spill: true,
        hwm: Some(7),
    };
    assert_eq!(read(text), expected);
    assert_eq!(text.parse::<Address>().expect("an address").to_string(), text);
    for (text, problem) in [
        ("zmq://router?handshake=h", "handshake: the port is missing"),
        ("zmq://router?livecheck=3", "stand with handshake only"),
        ("zmq://router?handshake=h:1&handshake-timeout=0", "a number from 1 to 60000"),
        ("zmq://router?spill=stdout", "where stderr is accepted"),
        ("zmq://router?hwm=0", "a number from 1 to"),
        ("zmq://router?gzip=true", "handshake, handshake-timeout, livecheck, spill and hwm are known"),
        ("zmq://router?framing=heka", "and \"zmq\" does not"),
    ] {
        let error = text.parse::<Address>().expect_err(text).to_string();
        let is_without_heka = !cfg!(feature = "heka") && text.ends_with("heka");
        assert!(error.contains(problem) || is_without_heka, "{text}: {error}");
    }
}
