//! What can lie between a client and a server: encryption and a proxy.

mod encryption;
mod proxy;

pub use encryption::Encryption;
pub use proxy::{Proxied, Proxy};
