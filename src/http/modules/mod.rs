//! One feature, one file: each module owns its directives, settings, variables and code.
//!
//! This file is their registry. A module with settings stands in `modules_with_settings!`; what else it gives
//! (variables, a place among the phases or filters) stands in the ordered lists of `phases`, `filters` and below.

use std::rc::Rc;
use std::sync::Arc;

use crate::conf::diagnostics::Diagnostic;
use crate::conf::directive::Directive;

use super::build::{Builder, Scope};
use super::settings::ModuleDraft;
use super::variables::VariableEntry;

pub mod compress;
pub mod conditional;
pub mod connection_variables;
pub mod core_variables;
pub mod passing;
pub mod ranges;
pub mod table_laws;
pub mod upstream_variables;
#[cfg(test)]
mod variable_tests;

macro_rules! modules_with_settings {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        $($(#[doc = $doc])+ pub mod $name;)+

        /// The drafts of one scope; a module that says nothing in the scope has none.
        #[derive(Default)]
        pub struct Drafts {
            $($(#[doc = $doc])+ pub $name: Option<Box<$name::Draft>>,)+
        }

        /// The frozen settings of one scope; scopes that say nothing of their own share those of the scope around.
        #[derive(Clone)]
        pub struct LocationSettings {
            $($(#[doc = $doc])+ pub $name: Arc<$name::Settings>,)+
        }

        /// A scope's drafts with everything inherited, beside their frozen form.
        #[derive(Clone)]
        pub struct Merged {
            drafts: MergedDrafts,
            /// The frozen form.
            pub settings: LocationSettings,
        }

        #[derive(Clone)]
        struct MergedDrafts {
            $($name: Rc<$name::Draft>,)+
        }

        impl Drafts {
            /// Merges with nothing around: the outermost scope.
            pub fn outermost(self) -> Merged {
                $(let $name = Rc::new(self.$name.map(|draft| *draft).unwrap_or_default());)+
                Merged {
                    settings: LocationSettings { $($name: Arc::new($name.freeze()),)+ },
                    drafts: MergedDrafts { $($name,)+ },
                }
            }

            /// Takes what is unset from the scope around.
            pub fn merge(self, around: &Merged) -> Merged {
                let mut merged = around.clone();
                $(if let Some(mut draft) = self.$name {
                    draft.inherit(&around.drafts.$name);
                    merged.settings.$name = Arc::new(draft.freeze());
                    merged.drafts.$name = Rc::new(*draft);
                } else if !around.drafts.$name.is_shared() {
                    let mut draft = $name::Draft::default();
                    draft.inherit(&around.drafts.$name);
                    merged.settings.$name = Arc::new(draft.freeze());
                    merged.drafts.$name = Rc::new(draft);
                })+
                merged
            }
        }

        /// The directives of all modules.
        pub fn directives() -> impl Iterator<Item = &'static Directive<Scope>> {
            let all: Vec<&'static [Directive<Scope>]> = vec![$($name::DIRECTIVES),+];
            all.into_iter().flatten()
        }
    };
}

modules_with_settings! {
    /// What nginx's core module has: roots, limits, timeouts, connection handling.
    core,
    /// `error_page` and what goes with it.
    error_pages,
    /// `types`, `default_type`.
    types,
    /// `rewrite`, `return`, `if`, `set`, `break`.
    rewrite,
    /// `allow`, `deny`, `auth_delay`, and the access phase.
    access,
    /// `auth_basic`.
    auth_basic,
    /// `auth_request`, `auth_request_set`.
    auth_request,
    /// `forward_auth`.
    forward_auth,
    /// `add_before_body`, `add_after_body`.
    addition,
    /// `mirror`.
    mirror,
    /// `post_action`.
    post_action,
    /// `try_files`.
    try_files,
    /// `client_body_*`.
    request_body,
    /// `index`.
    index,
    /// `random_index`.
    random_index,
    /// `autoindex`.
    autoindex,
    /// `gzip_static`, `brotli_static`, `zstd_static`, and what decides whether they apply.
    precompressed,
    /// Files from disk: `open_file_cache`, `disable_symlinks`, `etag`, `max_ranges`.
    static_files,
    /// `dav_methods`, `dav_access`, `create_full_put_path`, `min_delete_depth`.
    dav,
    /// `mp4`.
    mp4,
    /// `flv`.
    flv,
    /// `spa`.
    spa,
    /// `empty_gif`.
    empty_gif,
    /// `add_header`, `add_trailer`, `expires`.
    headers,
    /// `gunzip`.
    gunzip,
    /// `slice`.
    slice,
    /// `sub_filter`.
    sub_filter,
    /// `charset`, `charset_map`.
    charset,
    /// `ssi`.
    ssi,
    /// `gzip`.
    gzip,
    /// `brotli`.
    brotli,
    /// `zstd`.
    zstd,
    /// `proxy_pass` and what goes with it.
    proxy,
    /// `proxy_ssl_*`.
    proxy_ssl,
    /// `grpc_pass` and what goes with it.
    grpc,
    /// `grpc_ssl_*`.
    grpc_ssl,
    /// `memcached_pass` and what goes with it.
    memcached,
    /// `tunnel_pass` and what goes with it.
    tunnel,
    /// `map`.
    map,
    /// `split_clients`.
    split_clients,
    /// `geo`.
    geo,
    /// `geo_mmdb`.
    geo_mmdb,
    /// `set_real_ip_from`, `real_ip_header`.
    realip,
    /// `valid_referers`.
    referer,
    /// `secure_link`.
    secure_link,
    /// TLS to clients.
    ssl,
    /// HTTP/2 to clients.
    http2,
    /// `userid`.
    userid,
    /// `modern_browser`, `ancient_browser`.
    browser,
    /// `cors`.
    cors,
    /// `limit_req`.
    limit_req,
    /// `limit_conn`.
    limit_conn,
    /// `client_connections_max`.
    client_connections,
    /// `stub_status`.
    stub_status,
    /// `degradation`.
    degradation,
    /// `resolver`, `resolver_timeout`.
    resolver,
    /// `upstream` and what stands in it.
    upstream,
    /// `health_check` and `match`.
    health_check,
    /// `access_log`, `log_format`, `error_log`.
    log,
}

/// What modules remember of one request, beyond one call.
#[derive(Default)]
pub struct Notes {
    /// The peer whose address a proxy's report has replaced.
    pub real_ip: realip::Note,
    /// The client's identifier, once a variable or the filter asked for it.
    pub user_id: userid::Note,
    /// What `limit_req` has decided.
    pub limit_req: limit_req::Note,
    /// What `limit_conn` has decided, and the request's places in its zones.
    pub limit_conn: limit_conn::Note,
    /// Where the access phase stands.
    pub access: access::Running,
    /// The password that is asked about.
    pub password: auth_basic::Note,
    /// What is to be changed in the file system.
    pub dav: dav::Note,
    /// Where the cutting of a video stands.
    pub mp4: mp4::Note,
    /// The commands in its page.
    pub ssi: ssi::Note,
    /// The slice that its upstream is asked for.
    pub slice: slice::Note,
    /// The character set that its body must be in.
    pub charset: charset::Note,
    /// What compression has saved.
    pub compress: compress::Note,
}

/// Settings around the `http` block: defaults that depend on where the server is installed.
pub fn outermost_drafts(builder: &mut Builder) -> Drafts {
    let mut drafts = Drafts::default();
    drafts.core.get_or_insert_default().root = Some(core::Root::default_below(&builder.prefix));
    drafts.request_body.get_or_insert_default().temp_path =
        Some(Some(request_body::TempPath::default_below(&builder.prefix, "client_body_temp")));
    drafts.proxy.get_or_insert_default().temp_path =
        Some(Some(request_body::TempPath::default_below(&builder.prefix, "proxy_temp")));
    drafts
}

/// Warns of traps in what one scope says, `drafts`, within the settings around it.
pub fn warn_of_traps(builder: &mut Builder, drafts: &Drafts, around: &LocationSettings) {
    if let Some(own) = &drafts.headers {
        for (span, include, directive) in headers::hidden_lines(own, &around.headers) {
            let message = headers::hidden_lines_message(directive);
            builder.diagnostics.push(Diagnostic::warning(message).at(span).within(include));
        }
    }
    if let Some(own) = &drafts.proxy {
        proxy::check(builder, own, &around.proxy);
        if let Some((span, include)) = proxy::hidden_headers(own, &around.proxy) {
            let message = "this \"proxy_set_header\" makes those of the outer level disappear here; repeat the ones \
                           that are still wanted";
            builder.diagnostics.push(Diagnostic::warning(message).at(span).within(include));
        }
    }
    if let Some((span, include)) = drafts.secure_link.as_deref().and_then(secure_link::mixed_forms) {
        builder.error_at(span, include, secure_link::MIXED_FORMS);
    }
    if let Some((span, include)) = health_check::lacks_http2(drafts, around) {
        builder.error_at(span, include, health_check::LACKS_HTTP2);
    }
    if let Some(own) = &drafts.charset {
        charset::check(builder, own, &around.charset);
    }
    let referers = drafts.referer.as_ref().and_then(|own| own.valid.as_ref());
    if let Some((span, include)) = referers.and_then(|valid| valid.names_nobody()) {
        builder.error_at(span, include, referer::NAMES_NOBODY);
    }
    let rules = drafts.access.as_ref().and_then(|own| own.rules.as_ref());
    if let Some((span, include)) = rules.and_then(access::Rules::pointless_allow) {
        builder.diagnostics.push(Diagnostic::warning(access::POINTLESS_ALLOW).at(span).within(include));
    }
}

/// The built-in variables of all modules.
pub fn variables() -> impl Iterator<Item = &'static VariableEntry> {
    VARIABLES.iter().copied().flatten()
}

/// The modules that have variables.
static VARIABLES: &[&[VariableEntry]] = &[
    core_variables::VARIABLES,
    connection_variables::VARIABLES,
    headers::VARIABLES,
    slice::VARIABLES,
    ssi::VARIABLES,
    compress::VARIABLES,
    proxy::VARIABLES,
    upstream_variables::VARIABLES,
    realip::VARIABLES,
    referer::VARIABLES,
    secure_link::VARIABLES,
    ssl::VARIABLES,
    http2::VARIABLES,
    http2::LIMIT_VARIABLES,
    userid::VARIABLES,
    browser::VARIABLES,
    stub_status::VARIABLES,
    limit_req::VARIABLES,
    limit_conn::VARIABLES,
];
