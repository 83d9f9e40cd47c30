//! How many files and sockets the process may have open. In: what the system allows. Out: a limit that the connections of
//! all inputs fit under. Nothing is lost here: a router with fewer counts the connections that it cannot accept.

/// Raises the soft limit to the hard one. Shells and service managers leave it at 1,024, for the sake of programs that use
/// `select`; that is what one TCP input may have connections, and files need descriptors too.
#[cfg(unix)]
pub fn raise_limit() {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it the router works with what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(not(unix))]
pub fn raise_limit() {}
