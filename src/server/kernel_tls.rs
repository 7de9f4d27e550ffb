//! Whether this kernel encrypts by itself (kTLS), and how: asked once, of a connection over the loopback.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use crate::proto::tls::KernelSuite;

use super::sys;

/// What the kernel can do.
#[derive(Debug)]
pub struct Support {
    suites: Vec<KernelSuite>,
    /// Why it is nothing at all.
    reason: Option<std::io::Error>,
}

impl Support {
    /// Whether connections with this suite may be given to it.
    pub fn has(&self, suite: KernelSuite) -> bool {
        self.suites.contains(&suite)
    }

    /// For the log.
    pub fn describe(&self) -> String {
        match (&self.reason, self.suites.len()) {
            (Some(reason), _) => {
                format!("the kernel does not have TLS ({reason}): files are encrypted by the server")
            }
            (None, 0) => "the kernel's TLS has no cipher in common with ours".to_owned(),
            _ => format!("the kernel encrypts by itself: {:?}", self.suites),
        }
    }
}

/// What the kernel can do. The first call asks it, and should be made while the process is still privileged: the kernel
/// may have to load a module.
pub fn support() -> &'static Support {
    static SUPPORT: OnceLock<Support> = OnceLock::new();
    SUPPORT.get_or_init(|| {
        let mut support = Support { suites: Vec::new(), reason: None };
        for suite in KernelSuite::ALL {
            match has(suite) {
                Ok(true) => support.suites.push(suite),
                Ok(false) => {}
                Err(error) => {
                    support.reason = Some(error);
                    break;
                }
            }
        }
        support
    })
}

/// An error says that there is no TLS at all.
fn has(suite: KernelSuite) -> std::io::Result<bool> {
    // Only an established connection can be asked.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _peer = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    sys::attach_tls(socket.as_fd())?;
    let keys = suite.sample();
    let both = [true, false].map(|transmits| sys::set_tls_keys(socket.as_fd(), transmits, keys.as_bytes()));
    Ok(both.iter().all(Result::is_ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_it_can_do_or_why_not() {
        let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
        let text = support().describe();
        if known.split_ascii_whitespace().any(|name| name == "tls") {
            assert!(text.contains("Aes128Gcm"), "{text}");
        } else if support().reason.is_some() {
            assert!(!KernelSuite::ALL.iter().any(|suite| support().has(*suite)), "{text}");
        }
    }
}
