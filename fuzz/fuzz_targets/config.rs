//! Any text is a configuration or errors that can be shown; what is shown never has the secret that stands in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracing_metlog::router::Config;

fuzz_target!(|text: &str| {
    match Config::from_toml(text) {
        Ok(config) => drop(config.to_string()),
        Err(error) => {
            assert!(!error.problems().is_empty());
            let shown = error.to_string();
            for problem in error.problems() {
                assert!(problem.line <= text.matches('\n').count() + 1 && shown.contains(&problem.text));
            }
        }
    }
});
