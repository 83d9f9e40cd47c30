//! What is promised of the configuration file.

use std::env::VarError;

use proptest::prelude::*;

use super::*;
use crate::router::matcher::Matcher;
use crate::Severity;

fn variables(name: &str) -> Result<String, VarError> {
    match name {
        "PORT" => Ok(String::from("7001")),
        "MANY" => Ok(String::from("17")),
        "SECRET" => Ok(String::from("s3cr3t")),
        "SENTRY_DSN" => Ok(String::from("https://s3cr3t@sentry.example/1")),
        "HOSTILE" => Ok(String::from("x\"\n[[input]]\nurl = \"tcp://0.0.0.0:1\"\n#")),
        _ => Err(VarError::NotPresent),
    }
}

fn config(text: &str) -> Config {
    read("test.toml", text, &variables).unwrap_or_else(|error| panic!("{error}"))
}

fn errors(text: &str) -> String {
    match read("test.toml", text, &variables) {
        Ok(config) => panic!("{text} is taken: {config}"),
        Err(error) => error.to_string(),
    }
}

const NULL: &str = "[output.none]\ntype = \"null\"\n[[route]]\nto = \"none\"\n";

#[test]
fn an_empty_file_means_what_no_file_means() {
    let (empty, default) = (config(""), Config::default());
    assert_eq!(format!("{empty:?}"), format!("{default:?}"));
}

#[test]
fn every_option_of_the_example_does_what_it_says() {
    let config = config(
        r#"
        [router]
        drain_deadline = "250ms"
        report_every = "1h"
        [[input]]
        url = "udp://127.0.0.1:${PORT}"
        max_message_bytes = 1234
        [[input]]
        url = "tcp://[::1]:0"
        max_message_bytes = "64KiB"
        max_connections = "${MANY}"
        idle_deadline = "60s"
        [output.lines]
        type = "console"
        color = "never"
        [output."other one"]
        type = "file"
        path = "/tmp/$$x"
        [[route]]
        type = "timer"
        severity_at_most = "error"
        to = ["lines", "other one"]
        [[route]]
        types = ["a", "b"]
        severity_at_most = 2
        to = "lines"
        "#,
    );
    assert_eq!(config.drain_deadline, std::time::Duration::from_millis(250));
    assert_eq!(config.report_every, Some(std::time::Duration::from_secs(3600)));
    let tcp = Input::tcp("[::1]:0").max_message_bytes(65_536).max_connections(17);
    let expected = [
        Input::udp("127.0.0.1:7001").max_message_bytes(1234),
        tcp.idle_deadline(std::time::Duration::from_secs(60)),
    ];
    assert_eq!(config.inputs, expected);
    let first = Matcher::severity_at_most(Severity::Error);
    let second = Matcher::severity_at_most(Severity::Critical);
    let routes: Vec<_> =
        config.routes.iter().map(|route| (route.matcher.clone(), route.output.to_string())).collect();
    let first = Matcher::type_is("timer").and(first);
    assert_eq!(routes[0], (first.clone(), String::from("console")));
    assert_eq!(routes[1], (first, String::from("file:/tmp/$x")));
    assert_eq!(routes[2], (second.and(Matcher::types(["a", "b"])), String::from("console")));
}

#[test]
fn a_route_takes_what_all_its_conditions_hold_for() {
    let text = "[output.x]\ntype = \"null\"\n[[route]]\nto = \"x\"\nlogger = 'a\"\\b'\n\
                match = \"Severity < 4 || Fields[x] == ${MANY}\"\ntypes = [\"p\", \"q\"]\n";
    let matcher = &config(text).routes[0].matcher;
    let mut message = crate::Message::new("p", "");
    message.logger = String::from("a\"\\b");
    assert!(!matcher.matches(&message));
    message.fields.insert(String::from("x"), 17.into());
    assert!(matcher.matches(&message));
    message.r#type = String::from("r");
    assert!(!matcher.matches(&message));
    message.r#type = String::from("q");
    assert!(matcher.matches(&message));
    message.logger = String::from("a");
    assert!(!matcher.matches(&message));
}

#[test]
fn an_error_shows_file_line_column_key_caret_and_what_is_accepted() {
    let text = "[router]\ndrain_deadline = 5\n";
    let expected =
        "test.toml:2:18: router.drain_deadline: accepted is a duration such as \"250ms\", \"5s\", \"10m\", \
                    \"1h\" or \"7d\", not 5\n 2 | drain_deadline = 5\n   |                  ^";
    assert_eq!(errors(text), expected);
}

#[test]
fn each_mistake_is_named_where_it_is_with_what_would_be_right() {
    for (text, place, parts) in [
        ("[router", "1:8: ", &["not TOML"][..]),
        ("a = 1\na = 2\n", "2:1: ", &["not TOML: duplicate key"]),
        ("[rooter]\n", "1:2: rooter: ", &["did you mean `router`?"]),
        ("[something]\n", "1:2: something: ", &["accepted is `router`, `input`, `output` or `route`"]),
        ("router = 1\n", "1:10: router: ", &["a table is accepted, not a whole number"]),
        ("[router]\nadmin = \"5566\"\n", "2:9: router.admin: ", &["accepted is HOST:PORT"]),
        ("[router]\nreport_every = \"1ms\"\n", "2:16: router.report_every: ", &["at least \"100ms\""]),
        ("[input]\nurl = \"udp://h:1\"\n", "1:1: input: ", &["[[input]], in two brackets"]),
        ("[[input]]\n", "1:1: input: ", &["`url` is missing; for instance url = \"udp://127.0.0.1:5565\""]),
        ("[[input]]\nurl = \"gopher://h:1\"\n", "2:7: input.url: ", &["accepted is udp://HOST:PORT"]),
        ("[[input]]\nurl = 5\n", "2:7: input.url: ", &["accepted is a text, not a whole number"]),
        (
            "[[input]]\nurl = \"tcp://h:1\"\nmax_connection = 5\n",
            "3:1: input.max_connection: ",
            &["`max_connections`"],
        ),
        (
            "[[input]]\nurl = \"udp://h:1\"\nmax_connections = 5\n",
            "3:19: input.max_connections: ",
            &["datagrams"],
        ),
        (
            "[[input]]\nurl = \"tcp://h:1\"\nmax_connections = -5\n",
            "3:19: ",
            &["accepted is a whole number, not -5"],
        ),
        (
            "[[input]]\nurl = \"tcp://h:1\"\nmax_connections = \"5\"\n",
            "3:19: ",
            &["a whole number, not \"5\""],
        ),
        (
            "[[input]]\nurl = \"tcp://h:1\"\nmax_message_bytes = \"9TiB\"\n",
            "3:21: ",
            &["accepted is at most"],
        ),
        ("[[input]]\nurl = \"tcp://h:${NO}\"\n", "2:7: input.url: ", &["environment variable NO is not set"]),
        ("[[input]]\nurl = \"${PORT}\"\n", "2:7: input.url: ", &["with its variables it is \"7001\""]),
        (
            "[[input]]\nurl = \"udp://h:1\"\nmessage_deadline = \"5s\"\n",
            "3:20: input.message_deadline: ",
            &["datagrams"],
        ),
        ("[[input]]\nurl = \"unix:///h\"\nallow = \"::1\"\n", "3:9: input.allow: ", &["Unix socket"]),
        (
            "[[input]]\nurl = \"udp://h:1\"\nallow = [\"::1\", \"10.0.0.1/8\"]\n",
            "3:17: input.allow: ",
            &["10.0.0.0/8"],
        ),
        ("[output.x]\ntype = \"file\"\npath = \"/tmp/x\"\nkeep = 5\n", "4:8: output.x.keep: ", &["rotat"]),
        ("[output.x]\ntype = \"file\"\npath = \"/tmp/{typo}\"\n", "3:8: output.x.path: ", &["{typo}"]),
        ("[output.x]\n", "1:1: output.x: ", &["`type` is missing", "\"file\""]),
        ("[output.x]\ntype = \"fiel\"\n", "2:8: output.x.type: ", &["did you mean \"file\"?"]),
        ("[output.x]\ntype = \"carrier-pigeon\"\n", "2:8: output.x.type: ", &["accepted is \"file\""]),
        ("[output.x]\ntype = \"file\"\n", "1:1: output.x: ", &["`path` is missing"]),
        ("[output.x]\ntype = \"null\"\n", "1:9: output.x: ", &["no route leads here"]),
        (
            "[output.x]\ntype = \"console\"\ncolor = \"blue\"\n",
            "3:9: ",
            &["\"auto\", \"always\" or \"never\", not \"blue\""],
        ),
        ("[[route]]\nto = \"x\"\n", "2:6: route.to: ", &["there is no output: [output.x] is missing"]),
        ("[[route]]\nto = []\n", "2:6: route.to: ", &["not an empty list"]),
        (
            "[output.lines]\ntype=\"null\"\n[[route]]\nto = [\"lines\", \"line\"]\n",
            "4:16: ",
            &["did you mean \"lines\"?"],
        ),
        ("[[route]]\ntype = \"x\"\n", "1:1: route: ", &["`to` is missing"]),
        (
            "[[route]]\nto = \"x\"\nseverity_at_most = 8\n",
            "3:20: ",
            &["a number from 0 to 7", "\"informational\""],
        ),
        ("[[route]]\nto = \"x\"\nseverity_at_most = \"bad\"\n", "3:20: ", &["not \"bad\""]),
        (
            "[output.a]\ntype=\"console\"\n[output.b]\ntype=\"console\"\n[[route]]\nto = [\"a\", \"b\"]\n",
            "3:9: output.b: ",
            &["the same place as output.a"],
        ),
    ] {
        let shown = errors(text);
        assert!(shown.contains(&format!("test.toml:{place}")), "{place} for {text}\n{shown}");
        parts.iter().for_each(|part| assert!(shown.contains(part), "{part} is not in\n{shown}"));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = format!("{NULL}[router]\nadmin = 5\ndrain_deadline = \"x\"\n[[input]]\nurl = \"x\"\nmax_connections = \"y\"\n");
    let error = read("test.toml", &text, &variables).expect_err("wrong");
    let lines: Vec<_> = error.problems().iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    let expected =
        [(6, "router.admin"), (7, "router.drain_deadline"), (9, "input.url"), (10, "input.max_connections")];
    assert_eq!(lines, expected, "{error}");
}

#[test]
fn a_variable_cannot_bring_in_toml() {
    let config = config("[output.x]\ntype = \"file\"\npath = \"/tmp/${HOSTILE}\"\n[[route]]\nto = \"x\"\n");
    assert_eq!(config.inputs, Config::default().inputs);
    assert_eq!(
        config.routes[0].output.to_string(),
        format!("file:/tmp/{}", variables("HOSTILE").expect("set"))
    );
    assert!(errors("[\"${SECRET}\"]\n").contains("unknown"), "keys have no variables");
}

#[test]
fn the_file_that_is_printed_means_what_no_file_means() {
    let config = config(&Config::default_toml());
    assert_eq!(config.inputs, Config::default().inputs);
    let outputs: Vec<_> = config.routes.iter().map(|route| route.output.to_string()).collect();
    assert_eq!(outputs, ["console"]);
}

/// Every option that the printed file has behind `#`, alone switched on in that file.
#[test]
fn every_option_of_the_printed_file_is_valid_when_it_is_switched_on() {
    let text = Config::default_toml();
    let mut tried = 0;
    for (number, line) in text.lines().enumerate() {
        let Some(option) = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '))
        else {
            continue;
        };
        if option.starts_with('[') || option.starts_with("type =") {
            continue;
        }
        let text = switched_on(&text, number);
        match read("printed.toml", &text, &variables) {
            Ok(_) => tried += 1,
            // Options that go with another kind of input than the printed one.
            Err(error) => {
                let others = [
                    "datagrams",
                    "Unix socket",
                    "inputs only",
                    "not both",
                    "rotat",
                    "another format",
                    "spool",
                    "os error 2",
                ];
                assert!(others.iter().any(|other| error.to_string().contains(other)), "{option}: {error}");
            }
        }
    }
    assert!(tried >= 8, "{tried}");
}

/// The printed file with its line `number` taken out of its comment, and the table around it, with a route to it.
fn switched_on(text: &str, number: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start =
        (0..number).rev().find(|&line| lines[line].trim_start_matches('#').starts_with('[')).unwrap_or(0);
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    for line in [start, number] {
        out[line] = lines[line].trim_start_matches('#').to_owned();
    }
    if let Some(name) = out[start].strip_prefix("[output.").filter(|name| !name.starts_with("console")) {
        let name = name.trim_end_matches(']').to_owned();
        out[start + 1] = lines[start + 1].trim_start_matches('#').to_owned();
        out.push(format!("[[route]]\nto = {name:?}"));
        // What must be given is given, unless it is the option itself.
        for line in start + 2..lines.len() {
            if lines[line].trim_start_matches('#').starts_with('[') {
                break;
            }
            let needed =
                outputs::KINDS.iter().find(|kind| kind.name == name).map(|kind| (kind.page)().needed());
            let is_needed = |key: &&str| {
                lines[line].strip_prefix('#').is_some_and(|rest| rest.starts_with(&format!("{key} =")))
            };
            if needed.iter().flatten().any(is_needed) {
                out[line] = lines[line].trim_start_matches('#').to_owned();
            }
        }
    }
    out.join("\n")
}

/// Where the definitions name a default, giving it changes nothing.
#[test]
fn the_defaults_that_the_definitions_name_are_the_real_ones() {
    let printed = Config::default_toml();
    let (mut checked, without) = (0, config(&printed));
    for (option, value) in page::defaults("[router]") {
        let text = printed.replace(&format!("#{option} = {value}\n"), &format!("{option} = {value}\n"));
        assert_ne!(text, printed, "{option}");
        assert_eq!(format!("{:?}", config(&text)), format!("{without:?}"), "{option}");
        checked += 1;
    }
    assert!(checked > 0);
}

/// The page is what the definitions give: `cargo run --all-features --bin metlog-router -- --print-reference` writes it.
#[cfg(all(feature = "sentry", feature = "http", feature = "tls", feature = "spool"))]
#[test]
fn the_reference_page_is_what_the_definitions_give() {
    let page = include_str!("../../../docs/router-config.md");
    assert!(page == Config::reference(), "docs/router-config.md is not what --print-reference prints");
}

#[test]
fn every_option_that_is_secret_is_hidden_in_errors() {
    for name in page::secrets() {
        assert!(error::SECRETS.contains(&name), "{name}");
    }
    let shown = errors("[output.x]\ntype = \"nothing\"\ndsn = \"https://s3cr3t@h/1\" = \n");
    assert!(shown.contains("3 | dsn = ***\n") && !shown.contains("s3cr3t"), "{shown}");
}

#[cfg(feature = "sentry")]
#[test]
fn options_of_outputs_over_a_network_are_checked_where_they_stand_and_tell_no_secret() {
    const S: &str = "[output.s]\ntype = \"sentry\"\n";
    const H: &str = "[output.s]\ntype = \"http\"\n";
    const F: &str = "[output.s]\ntype = \"forward\"\n";
    for (table, options, place, part) in [
        (S, "", "1:1: output.s: ", "`dsn` is missing"),
        (S, "dsn = \"https://s3cr3t@/1\"", "3:7: output.s.dsn: ", "DSN"),
        (S, "dsn = \"${SENTRY_DSN}x y\"", "3:7: output.s.dsn: ", ""),
        (S, "dsn = [\"s3cr3t\"]", "3:7: output.s.dsn: ", "not this"),
        (S, "dsn = \"${SENTRY_DSN}\"\ndsn_file = \"/s\"", "4:12: output.s.dsn_file: ", "not both"),
        (S, "dsn = \"${SENTRY_DSN}\"\nbreadcrumbs = 101", "4:15: output.s.breadcrumbs: ", "0 to 100"),
        (S, "dsn = \"${SENTRY_DSN}\"\nrelease = \"a b/c\"", "4:11: output.s.release: ", "accepted"),
        (S, "dsn_file = \"/nonexistent\"", "3:12: output.s.dsn_file: ", "No such file"),
        (S, "dsn_file = \"/dev/null\"", "3:12: output.s.dsn_file: ", "holds no DSN"),
        (H, "url = \"tcp://bob:s3cr3t@h:1\"", "3:7: output.s.url: ", ""),
        (H, "url = \"http://h/\"\nindex = \"x\"", "4:9: output.s.index: ", "another format"),
        (H, "url = \"http://h/\"\nformat = \"loki\"\nlabels = [\"type\", \"x\"]", "1:1: output.s: ", "\"x\""),
        (F, "router = \"off\"", "3:10: output.s.router: ", "off is no router"),
        (F, "router = \"gopher://bob:s3cr3t@h\"", "3:10: output.s.router: ", ""),
        (F, "router = \"tcp://h:1\"\nspool_bytes = \"1MiB\"", "4:15: output.s.spool_bytes: ", "spool"),
    ] {
        let text = format!("{table}{options}\n");
        let shown = errors(&text);
        assert!(shown.contains(&format!("test.toml:{place}")) && shown.contains(part), "{text}\n{shown}");
        assert!(!shown.contains("s3cr3t"), "{text}\n{shown}");
    }
    let text = format!("{S}dsn = \"${{SENTRY_DSN}}\"\n[[route]]\nto = \"s\"\n");
    let config = config(&text);
    assert!(!format!("{config:?} {config}").contains("s3cr3t"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::read("/nonexistent/router.toml").expect_err("not there").to_string();
    assert!(error.starts_with("/nonexistent/router.toml: "), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_errors(text in any::<String>()) {
        total(&text);
    }

    #[test]
    fn any_mixture_of_pieces_of_a_configuration_is_one_or_errors(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..20)
    ) {
        total(&pieces.concat());
    }
}

fn total(text: &str) {
    if let Err(error) = read("any.toml", text, &variables) {
        assert!(!error.problems().is_empty());
        let shown = error.to_string();
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

const PIECES: &[&str] = &[
    "[router]\n",
    "[[input]]\n",
    "[[route]]\n",
    "[output.x]\n",
    "[output.\"ä ö\"]\n",
    "[output]\n",
    "[route]\n",
    "url = ",
    "type = ",
    "to = ",
    "match = ",
    "dsn = ",
    "path = ",
    "max_connections = ",
    "idle_deadline = ",
    "severity_at_most = ",
    "types = ",
    "drain_deadline = ",
    "\"udp://h:1\"\n",
    "\"tcp://h:1\"\n",
    "\"console\"\n",
    "\"null\"\n",
    "\"file\"\n",
    "\"sentry\"\n",
    "\"x\"\n",
    "[\"x\", \"y\"]\n",
    "[1, ",
    "]\n",
    "{ a = 1 }\n",
    "\"\"\"",
    "'''",
    "\\",
    "\"",
    "\n",
    "\r\n",
    "ä",
    "5\n",
    "-1\n",
    "0x10\n",
    "1_000\n",
    "1e5\n",
    "true\n",
    "1979-05-27\n",
    "\"5s\"\n",
    "\"64KiB\"\n",
    "\"${PORT}\"\n",
    "\"https://s3cr3t@h/1\"\n",
    "\"${SECRET}x\"\n",
    "\"$\"\n",
    "\"${\"\n",
    "=",
    ".",
    "#",
    "\0",
    "\u{feff}",
];
