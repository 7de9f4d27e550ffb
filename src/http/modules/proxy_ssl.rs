//! `proxy_ssl_*`: TLS to the upstreams of `proxy_pass https://...`.

use std::sync::Arc;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, number};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::passing::{TlsPlan, TlsSlot};
use crate::http::modules::ssl::{
    self, CertificateCache, Commands, FileText, certificate_cache, ciphers, conf_command, protocols,
};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::upstream_call::CallTls;
use crate::message::Status;
use crate::proto::tls::{Primitives, Suite, Versions};

settings! {
    module proxy_ssl;
    fields {
        /// The certificate that upstreams are shown which ask for one: a file with its chain.
        certificate: Option<FileText> = None, inherit;
            "proxy_ssl_certificate" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file_text;
        /// How long certificates whose names have variables are kept.
        certificate_cache: Option<CertificateCache> = None, inherit;
            "proxy_ssl_certificate_cache" HTTP_SERVER_LOCATION, Arity::between(1, 3), default "off", once certificate_cache;
        /// The key of the certificate.
        key: Option<FileText> = None, inherit;
            "proxy_ssl_certificate_key" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file_text;
        /// The cipher suites of TLS 1.2.
        ciphers: Option<Arc<[Suite]>> = None, inherit;
            "proxy_ssl_ciphers" HTTP_SERVER_LOCATION, Arity::exactly(1), default "DEFAULT", once ciphers;
        /// Commands of OpenSSL's configuration that have a counterpart here.
        commands: Commands = Commands::default(), inherit;
            "proxy_ssl_conf_command" HTTP_SERVER_LOCATION, Arity::exactly(2), default "", with conf_command;
        /// Lists of revoked certificates.
        crl: Option<FileText> = None, inherit;
            "proxy_ssl_crl" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file;
        /// The name that the upstream's certificate has to be for, and that is told to it.
        name: Option<Template> = None, inherit;
            "proxy_ssl_name" HTTP_SERVER_LOCATION, Arity::exactly(1), default "$proxy_host", once name;
        /// Passwords of the key, one on each line.
        password_file: Option<FileText> = None, inherit;
            "proxy_ssl_password_file" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file;
        /// Versions of the protocol.
        protocols: Versions = Versions::DEFAULT, inherit;
            "proxy_ssl_protocols" HTTP_SERVER_LOCATION, Arity::at_least(1), default "TLSv1.2 TLSv1.3", once protocols;
        /// Whether the name is told to the upstream (SNI).
        send_name: bool = false, inherit;
            "proxy_ssl_server_name" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Whether sessions are taken up again.
        reuse_sessions: bool = true, inherit;
            "proxy_ssl_session_reuse" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// The authorities whose upstreams are believed.
        trusted: Option<FileText> = None, inherit;
            "proxy_ssl_trusted_certificate" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file;
        /// Whether upstreams' certificates are checked.
        verify: Placed = Placed::default(), inherit;
            "proxy_ssl_verify" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once verify;
        /// Most certificates between an upstream's and a trusted one.
        verify_depth: u64 = 1, inherit;
            "proxy_ssl_verify_depth" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1", once number;
    }
    frozen {
        /// What is made of the rest where requests may need it.
        tls: TlsSlot = TlsSlot::default();
        /// The same where they go on over HTTP/2.
        tls_of_http2: TlsSlot = TlsSlot::default();
    }
    plain {
        /// Not built: keys of connections are not written to files.
        "proxy_ssl_key_log" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", no_key_log;
    }
}

/// Why a scope's requests may need TLS.
#[derive(Clone, Copy, Debug)]
pub struct NeedsTls {
    /// What the directives' names begin with (`proxy`).
    pub prefix: &'static str,
    /// Whether they go on over HTTP/2.
    pub http2: bool,
    /// A directive to point at.
    pub place: (Span, IncludeId),
}

/// A flag and where it was turned on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placed(Option<(Span, IncludeId)>);

/// An empty name takes back what an outer scope says.
fn unless_empty(file: FileText) -> Option<FileText> {
    (!file.template.is_empty()).then_some(file)
}

/// The path of a file, which may have variables.
pub fn file_text(scope: &mut Scope, call: &Call) -> Result<Option<FileText>, Complaint> {
    ssl::file_text(scope, call).map(unless_empty)
}

/// The path of a file.
pub fn file(scope: &mut Scope, call: &Call) -> Result<Option<FileText>, Complaint> {
    Ok(ssl::file(scope, call)?.and_then(unless_empty))
}

/// `..._ssl_name`
pub fn name(scope: &mut Scope, call: &Call) -> Result<Option<Template>, Complaint> {
    scope.builder.template(call.arg(0)).map(Some)
}

/// `..._ssl_verify`
pub fn verify(scope: &mut Scope, call: &Call) -> Result<Placed, Complaint> {
    Ok(Placed(flag(scope, call)?.then_some((call.span(), call.directive.include))))
}

/// `..._ssl_key_log`: refused.
pub fn no_key_log(_: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let message = format!("\"{}\" is not built into thalweg: keys of connections are not written to files", call.name());
    Err(Complaint::new(message).help("let the upstream write them"))
}

impl Settings {
    /// What is to be made of the settings, and where it belongs.
    pub fn plan(&self, needed: &NeedsTls) -> (TlsPlan, TlsSlot) {
        let mut primitives = Primitives { versions: self.protocols, ..Primitives::default() };
        if let Some(suites) = &self.ciphers {
            primitives.suites_1_2 = suites.to_vec();
        }
        self.commands.apply(&mut primitives);
        let plan = TlsPlan {
            prefix: needed.prefix,
            primitives,
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            passwords: self.password_file.clone(),
            cache: self.certificate_cache,
            verify: self.verify.0,
            depth: self.verify_depth,
            trusted: self.trusted.clone(),
            crl: self.crl.clone(),
            send_name: self.send_name,
            reuse_sessions: self.reuse_sessions,
            protocols: if needed.http2 { vec![b"h2".to_vec()] } else { Vec::new() },
            place: needed.place,
        };
        (plan, self.slot(needed.http2).clone())
    }

    fn slot(&self, http2: bool) -> &TlsSlot {
        if http2 { &self.tls_of_http2 } else { &self.tls }
    }

    /// TLS for one request to `host` (as `$proxy_host` shows it).
    ///
    /// # Errors
    /// What to answer: there is none, which the configuration's errors told of.
    pub fn call(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        host: &[u8],
        http2: bool,
    ) -> Result<Arc<CallTls>, Status> {
        let tls = self.slot(http2).get();
        debug_assert!(tls.is_some(), "a site without the TLS that it needs is none");
        let tls = tls.ok_or(Status::INTERNAL_SERVER_ERROR)?;
        let name: Box<str> = match &self.name {
            None => bare_name(host),
            Some(template) => exchange.with_rendered(template, context, |_, _, text| bare_name(text)),
        };
        let pair = tls.render(exchange, context);
        Ok(Arc::new(CallTls { tls: Arc::clone(tls), name, pair }))
    }

    /// TLS for health checks, which no request's variables are known for; a name that has some is `host`, and a
    /// certificate that has some is left out.
    pub fn probe(&self, host: &[u8], http2: bool) -> Option<Arc<CallTls>> {
        let literal = self.name.as_ref().and_then(Template::as_literal);
        let name = bare_name(literal.unwrap_or(host));
        self.slot(http2).get().map(|tls| Arc::new(CallTls { tls: Arc::clone(tls), name, pair: None }))
    }
}

/// A host without its port.
fn bare_name(host: &[u8]) -> Box<str> {
    let from = match host {
        [b'[', ..] => memchr::memchr(b']', host).unwrap_or(0),
        _ => 0,
    };
    let end = memchr::memchr(b':', &host[from..]).map_or(host.len(), |at| from + at);
    String::from_utf8_lossy(&host[..end]).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::bare_name;
    use crate::conf::files::MemoryFiles;
    use crate::conf::log_target::LogTarget;
    use crate::http::build::{BuildOptions, Built, build};
    use crate::http::modules::passing::UpstreamTls;
    use crate::http::modules::ssl::SiteTls;
    use crate::http::site::Site;

    macro_rules! fixture {
        ($name:literal) => {
            &include_bytes!(concat!("../../proto/tls/fixtures/", $name))[..]
        };
    }

    fn built(http: &str, previous: Option<&SiteTls>) -> Built {
        let mut files = MemoryFiles::new()
            .with("/c/main.conf", format!("events {{ }} http {{ {http} }}"))
            .with("/c/ca.pem", fixture!("ca.pem"))
            .with("/c/ca.crl", fixture!("ca.crl"))
            .with("/c/client.pem", fixture!("client.pem"))
            .with("/c/client.key", fixture!("client.key"))
            .with("/c/server.pem", fixture!("server-ec.pem"))
            .with("/c/encrypted.key", fixture!("encrypted-pkcs8.key"))
            .with("/c/passwords", "wrong\nsecret\n");
        let options = BuildOptions {
            error_log: &LogTarget::Stderr,
            previous_logs: None,
            previous_tls: previous,
            path: "/c/main.conf",
            prefix: "/",
            command_line: "",
            hostname: b"h",
            privileged: true,
            resolve: None,
        };
        build(&mut files, &options)
    }

    fn site(http: &str, previous: Option<&SiteTls>) -> Site {
        built(http, previous).site.expect("a site")
    }

    /// What was made for the scopes that have something, in the order of the scopes.
    fn made(site: &Site) -> Vec<Arc<UpstreamTls>> {
        site.locations.iter().filter_map(|location| location.settings.proxy_ssl.tls.get().cloned()).collect()
    }

    #[test]
    fn names_lose_their_ports() {
        for (host, name) in [
            ("a", "a"),
            ("a:443", "a"),
            ("[::1]", "[::1]"),
            ("[::1]:443", "[::1]"),
            ("[::1", "["),
            ("", ""),
            (":", ""),
        ] {
            assert_eq!(&*bare_name(host.as_bytes()), name, "{host}");
        }
    }

    #[test]
    fn only_scopes_that_may_need_it_have_it_and_equal_ones_share_it() {
        let none = site("proxy_ssl_verify off; server { location / { proxy_pass http://a; } }", None);
        assert!(made(&none).is_empty());
        let some = site(
            "server { location /a { proxy_pass https://a; proxy_ssl_server_name on; }
                 location /b { proxy_pass $arg_b; proxy_ssl_server_name on; }
                 location /c { proxy_pass https://a; proxy_ssl_session_reuse off; } }",
            None,
        );
        let made = made(&some);
        assert_eq!(made.len(), 3);
        assert!(Arc::ptr_eq(&made[0], &made[1]) && !Arc::ptr_eq(&made[0], &made[2]));
    }

    #[test]
    fn a_reload_keeps_what_has_not_changed() {
        let text = "server { proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem; location / { proxy_pass https://a; } }";
        let first = site(text, None);
        let again = site(&format!("log_not_found off; {text}"), Some(&first.tls));
        assert!(Arc::ptr_eq(&made(&first)[0], &made(&again)[0]));
        let other = site(&text.replace("ca.pem", "server.pem"), Some(&first.tls));
        assert!(!Arc::ptr_eq(&made(&first)[0], &made(&other)[0]));
    }

    #[test]
    fn everything_has_its_place_and_is_inherited() {
        let text = "proxy_ssl_certificate client.pem; proxy_ssl_certificate_key client.key; proxy_ssl_certificate_cache off;
             proxy_ssl_ciphers HIGH; proxy_ssl_conf_command Options SessionTicket; proxy_ssl_crl ca.crl;
             proxy_ssl_password_file passwords; proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_server_name on;
             proxy_ssl_trusted_certificate ca.pem; proxy_ssl_verify on; proxy_ssl_verify_depth 2;
             server { proxy_ssl_name a; proxy_ssl_session_reuse on; location / { proxy_pass https://a;
                 location /x { proxy_pass https://b; proxy_ssl_certificate \"\"; proxy_ssl_verify off; } } }";
        let built = built(text, None);
        assert!(built.diagnostics.iter().next().is_none());
        let site = built.site.expect("a site");
        let inner = &site.locations.last().expect("locations").settings.proxy_ssl;
        assert!(inner.certificate.is_none() && inner.key.is_some() && inner.trusted.is_some());
        assert_eq!((inner.verify_depth, inner.send_name), (2, true));
        let mut distinct: Vec<_> = made(&site).iter().map(Arc::as_ptr).collect();
        distinct.dedup();
        assert_eq!(distinct.len(), 2);
    }

    #[test]
    fn keys_may_be_encrypted() {
        let with = |more: &str| {
            built(
                &format!(
                    "server {{ location / {{ proxy_pass https://a; proxy_ssl_certificate server.pem;
                         proxy_ssl_certificate_key encrypted.key; {more} }} }}"
                ),
                None,
            )
        };
        assert!(with("proxy_ssl_password_file passwords;").diagnostics.iter().next().is_none());
        let told = with("").diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect::<Vec<_>>();
        assert!(told.len() == 1 && told[0].starts_with("cannot load certificate key \"/c/encrypted.key\""), "{told:?}");
    }
}
