//! What serves the router and no client: the admin server and the reporter. In: what a configuration says of them. Out: the
//! running ones, which a reload keeps if nothing else is said of them. Nothing can be lost here.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "http")]
use super::admin::Admin;
use super::config::RouterError;
use super::report::Reporter;
use super::Router;

/// What is to be, opened already, so that what follows cannot fail.
pub(super) struct Servants {
    /// `None`: as it is.
    #[cfg(feature = "http")]
    admin: Option<Option<Admin>>,
    admin_address: Option<String>,
    reporter: Option<Option<Reporter>>,
    report_every: Option<Duration>,
}

impl Router {
    /// Opens what a configuration wants and is not there yet.
    ///
    /// # Errors
    /// Why it cannot listen. Then nothing has changed.
    pub(super) fn servants(
        &self,
        admin_address: Option<String>,
        report_every: Option<Duration>,
    ) -> Result<Servants, RouterError> {
        #[cfg(feature = "http")]
        let admin = match &admin_address {
            address if *address == self.admin_address => None,
            None => Some(None),
            Some(address) => {
                let failed = |source| RouterError::Input { input: format!("{address} for /metrics"), source };
                let overview = Arc::clone(&self.overview);
                Some(Some(Admin::start(address, overview as _).map_err(failed)?))
            }
        };
        #[cfg(not(feature = "http"))]
        if let Some(value) = admin_address {
            let accepted = "no admin address, because this program is built without the feature `http`";
            return Err(RouterError::Config { value, accepted });
        }
        let reporter = match report_every {
            every if every == self.report_every => None,
            None => Some(None),
            Some(every) => {
                let reporter = Reporter::start(every, Arc::clone(&self.overview) as _);
                Some(Some(reporter.map_err(RouterError::System)?))
            }
        };
        Ok(Servants {
            #[cfg(feature = "http")]
            admin,
            admin_address,
            reporter,
            report_every,
        })
    }

    /// Has them serve from now on.
    pub(super) fn employ(&mut self, servants: Servants) {
        #[cfg(feature = "http")]
        if let Some(admin) = servants.admin {
            self.admin = admin;
        }
        self.admin_address = servants.admin_address;
        if let Some(reporter) = servants.reporter {
            self.reporter = reporter;
        }
        self.report_every = servants.report_every;
    }

    /// Has its servants see what it consists of now, and what is no more part of it.
    pub(super) fn publish(&self, gone: (&[&super::parts::OpenInput], &[&super::parts::OpenOutput])) {
        self.overview.publish((&self.inputs, &self.outputs), gone);
    }
}
