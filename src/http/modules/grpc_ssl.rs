//! `grpc_ssl_*`: TLS to the servers of `grpc_pass grpcs://...`; the settings of `proxy_ssl` under other
//! names.

use std::sync::Arc;

use crate::conf::directive::Arity;
use crate::conf::template::Template;
use crate::http::build::arguments::{flag, number};
use crate::http::modules::proxy_ssl::{self, Placed, file, file_text, name, no_key_log, verify};
use crate::http::modules::ssl::{
    CertificateCache, Commands, FileText, certificate_cache, ciphers, conf_command, protocols,
};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::proto::tls::{Suite, Versions};

settings! {
    module grpc_ssl;
    fields {
        /// The certificate that servers are shown which ask for one: a file with its chain.
        certificate: Option<FileText> = None, inherit;
            "grpc_ssl_certificate" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file_text;
        /// How long certificates whose names have variables are kept.
        certificate_cache: Option<CertificateCache> = None, inherit;
            "grpc_ssl_certificate_cache" HTTP_SERVER_LOCATION, Arity::between(1, 3), default "off", once certificate_cache;
        /// The key of the certificate.
        key: Option<FileText> = None, inherit;
            "grpc_ssl_certificate_key" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file_text;
        /// The cipher suites of TLS 1.2.
        ciphers: Option<Arc<[Suite]>> = None, inherit;
            "grpc_ssl_ciphers" HTTP_SERVER_LOCATION, Arity::exactly(1), default "DEFAULT", once ciphers;
        /// Commands of OpenSSL's configuration that have a counterpart here.
        commands: Commands = Commands::default(), inherit;
            "grpc_ssl_conf_command" HTTP_SERVER_LOCATION, Arity::exactly(2), default "", with conf_command;
        /// Lists of revoked certificates.
        crl: Option<FileText> = None, inherit;
            "grpc_ssl_crl" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file;
        /// The name that the upstream's certificate has to be for, and that is told to it.
        name: Option<Template> = None, inherit;
            "grpc_ssl_name" HTTP_SERVER_LOCATION, Arity::exactly(1), default "host of grpc_pass", once name;
        /// Passwords of the key, one on each line.
        password_file: Option<FileText> = None, inherit;
            "grpc_ssl_password_file" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file;
        /// Versions of the protocol.
        protocols: Versions = Versions::DEFAULT, inherit;
            "grpc_ssl_protocols" HTTP_SERVER_LOCATION, Arity::at_least(1), default "TLSv1.2 TLSv1.3", once protocols;
        /// Whether the name is told to the upstream (SNI).
        send_name: bool = false, inherit;
            "grpc_ssl_server_name" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Whether sessions are taken up again.
        reuse_sessions: bool = true, inherit;
            "grpc_ssl_session_reuse" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// The authorities whose servers are believed.
        trusted: Option<FileText> = None, inherit;
            "grpc_ssl_trusted_certificate" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once file;
        /// Whether servers' certificates are checked.
        verify: Placed = Placed::default(), inherit;
            "grpc_ssl_verify" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once verify;
        /// Most certificates between an upstream's and a trusted one.
        verify_depth: u64 = 1, inherit;
            "grpc_ssl_verify_depth" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1", once number;
    }
    frozen {
        /// The settings that connections are secured by.
        ssl: Arc<proxy_ssl::Settings> = Arc::new(
            proxy_ssl::Draft {
                certificate: Some(certificate.clone()),
                certificate_cache: Some(certificate_cache),
                key: Some(key.clone()),
                ciphers: Some(ciphers.clone()),
                commands: Some(commands.clone()),
                crl: Some(crl.clone()),
                name: Some(name.clone()),
                password_file: Some(password_file.clone()),
                protocols: Some(protocols),
                send_name: Some(send_name),
                reuse_sessions: Some(reuse_sessions),
                trusted: Some(trusted.clone()),
                verify: Some(verify),
                verify_depth: Some(verify_depth),
            }
            .freeze(),
        );
    }
    plain {
        /// Not built: keys of connections are not written to files.
        "grpc_ssl_key_log" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", no_key_log;
    }
}
