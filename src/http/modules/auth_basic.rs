//! `auth_basic`: users and passwords (RFC 7617), of a file as `htpasswd` makes it.
//!
//! Reading the file and checking a hash take their time: the shell does both in its pool
//! ([`Need::Password`](crate::http::flow::Need::Password)), and remembers for a while who was right.

use crate::base::base64;
use crate::base::level::Level;
use crate::base::password::Check;
use crate::conf::context as places;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::template;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Need};
use crate::http::modules::access::Verdict;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::{FieldName, Method, Status};

const RULED: places::Context = HTTP_SERVER_LOCATION.union(places::Context::LIMIT_EXCEPT);

settings! {
    module auth_basic;
    fields {
        /// The realm that clients are asked a password for, or `off`.
        realm: Option<Template> = None, inherit;
            "auth_basic" RULED, Arity::exactly(1), default "off", once |scope, call| template(scope, call).map(Some);
        /// The file with the users and the hashes of their passwords.
        user_file: Option<UserFile> = None, inherit;
            "auth_basic_user_file" RULED, Arity::exactly(1), default "", once read_user_file;
    }
}

/// `auth_basic_user_file`
#[derive(Clone, Debug)]
pub struct UserFile {
    path: Template,
    /// What a path of variables that turns out to be a relative one begins with.
    folder: Box<[u8]>,
}

/// A question for the shell: whether the file knows the user by this password.
#[derive(Clone, Default)]
pub struct Question {
    /// The password file.
    pub path: Vec<u8>,
    /// The user's name.
    pub user: Vec<u8>,
    /// The password, in the clear.
    pub password: Vec<u8>,
}

/// The question that waits for its answer.
pub type Note = Option<Box<Question>>;

/// What the shell has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAnswer {
    /// The password is right.
    Right,
    /// It is not.
    Wrong,
    /// The file does not have the user.
    UnknownUser,
    /// The file has a hash of no known kind for the user.
    Unusable,
    /// The file could not be read: the system's error number.
    Failed(i32),
    /// The pool has too much to do.
    Busy,
}

impl PasswordAnswer {
    /// What a check of the user's hash means.
    pub fn of(check: Check) -> PasswordAnswer {
        match check {
            Check::Right => PasswordAnswer::Right,
            Check::Wrong => PasswordAnswer::Wrong,
            Check::Unusable => PasswordAnswer::Unusable,
        }
    }
}

/// `ENOENT`, the same on every Linux.
const NO_ENTRY: i32 = 2;

fn read_user_file(scope: &mut Scope, call: &Call) -> Result<Option<UserFile>, Complaint> {
    let path = scope.builder.template(call.arg(0))?;
    let folder: Box<[u8]> = scope.builder.conf_prefix.as_bytes().into();
    let is_relative = path.as_literal().is_some_and(|text| !text.starts_with(b"/"));
    let path = if is_relative { path.prefixed(&folder) } else { path };
    Ok(Some(UserFile { path, folder }))
}

/// The rule of the access phase.
pub fn by_password(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Verdict {
    let site = context.site;
    let settings = &site.settings(exchange.location).auth_basic;
    let (Some(realm), Some(file)) = (&settings.realm, &settings.user_file) else { return Verdict::Abstain };
    if exchange.with_rendered(realm, context, |_, _, text| text == b"off") {
        return Verdict::Abstain;
    }
    if let Some(Answer::Password(answer)) = answer {
        return judge(exchange, context, realm, answer);
    }
    let Some((user, password)) = credentials(exchange) else {
        let message = format_args!("no user/password was provided for basic authentication");
        exchange.log(context, Level::Info, message);
        return challenge(exchange, context, realm);
    };
    let mut path = Vec::new();
    exchange.render(&file.path, context, &mut path);
    if !path.starts_with(b"/") {
        path.splice(..0, file.folder.iter().copied());
    }
    exchange.notes.password = Some(Box::new(Question { path, user, password }));
    Verdict::Need(Need::Password)
}

fn judge(exchange: &mut Exchange, context: &mut Context, realm: &Template, answer: PasswordAnswer) -> Verdict {
    let Some(question) = exchange.notes.password.take() else { return Verdict::Refuse(Status::FORBIDDEN) };
    let user = String::from_utf8_lossy(&question.user);
    let path = String::from_utf8_lossy(&question.path);
    match answer {
        PasswordAnswer::Right => Verdict::Allow,
        PasswordAnswer::Wrong => {
            exchange.log(context, Level::Error, format_args!("user \"{user}\": password mismatch"));
            challenge(exchange, context, realm)
        }
        PasswordAnswer::UnknownUser => {
            exchange.log(context, Level::Error, format_args!("user \"{user}\" was not found in \"{path}\""));
            challenge(exchange, context, realm)
        }
        PasswordAnswer::Unusable => {
            let message = format_args!("user \"{user}\" has a hash of an unknown kind in \"{path}\"");
            exchange.log(context, Level::Crit, message);
            Verdict::Refuse(Status::INTERNAL_SERVER_ERROR)
        }
        PasswordAnswer::Failed(errno) => {
            let error = std::io::Error::from_raw_os_error(errno).to_string();
            let reason = error.split(" (os error").next().unwrap_or(&error);
            let (level, status) = match errno {
                NO_ENTRY => (Level::Error, Status::FORBIDDEN),
                _ => (Level::Crit, Status::INTERNAL_SERVER_ERROR),
            };
            exchange.log(context, level, format_args!("open() \"{path}\" failed ({errno}: {reason})"));
            Verdict::Refuse(status)
        }
        PasswordAnswer::Busy => Verdict::Refuse(Status::SERVICE_UNAVAILABLE),
    }
}

/// Where the client's credentials stand, where the challenge goes, and the status that goes with it: CONNECT is for a
/// proxy.
fn fields(exchange: &Exchange) -> (FieldName, &'static [u8], Status) {
    match exchange.head.method {
        Method::Connect => {
            (FieldName::ProxyAuthorization, b"Proxy-Authenticate", Status::PROXY_AUTHENTICATION_REQUIRED)
        }
        _ => (FieldName::Authorization, b"WWW-Authenticate", Status::UNAUTHORIZED),
    }
}

fn challenge(exchange: &mut Exchange, context: &mut Context, realm: &Template) -> Verdict {
    let mut value = context.env.scratch();
    value.extend_from_slice(b"Basic realm=\"");
    exchange.render(realm, context, &mut value);
    value.push(b'"');
    let (_, name, status) = fields(exchange);
    exchange.response.fields.set(name, &value);
    context.env.give_back(value);
    Verdict::Refuse(status)
}

/// User and password of Basic credentials; `None` if there are none, or no user.
fn credentials(exchange: &Exchange) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = exchange.head.field(fields(exchange).0)?;
    let (scheme, encoded) = text.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let encoded = encoded.trim_ascii_start();
    let mut user = Vec::new();
    if encoded.is_empty() || !base64::decode(&mut user, encoded) {
        return None;
    }
    let colon = memchr::memchr(b':', &user).filter(|at| *at > 0)?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use crate::http::testing::World;

    /// user: secret ({SHA}), old: passwd (DES).
    const USERS: &str = "# users\nuser:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nold:rEK1ecacw.7.c\nbroken:$9$x\n";

    fn world(server: &str) -> World {
        World::new(&format!("server {{ root /srv; {server} }}"))
            .file("/srv/f", "file")
            .file("/etc/thalweg/users", USERS)
            .file("/etc/thalweg/other", "only:{PLAIN}x\n")
    }

    fn line(credentials: &str) -> String {
        let mut text = Vec::new();
        crate::base::base64::encode(&mut text, credentials.as_bytes());
        format!("Authorization: Basic {}\r\n", String::from_utf8(text).unwrap())
    }

    const CLOSED: &str = "auth_basic \"closed $arg_r\"; auth_basic_user_file users;";

    #[test]
    fn who_knows_the_password_passes() {
        let mut world = world(CLOSED);
        assert_eq!(world.get_with("/f", &line("user:secret")).text(), "file");
        assert_eq!(world.get_with("/f", &line("old:password")).text(), "file");
        let reply = world.get("/f?r=site");
        assert_eq!((reply.status, reply.field("WWW-Authenticate").as_str()), (401, "Basic realm=\"closed site\""));
        assert_eq!(reply.log.len(), 0);
        let reply = world.get_with("/f", &line("user:guess"));
        assert_eq!((reply.status, reply.log_texts()), (401, vec!["[error] user \"user\": password mismatch"]));
        let reply = world.get_with("/f", &line("nobody:guess"));
        let told = "[error] user \"nobody\" was not found in \"/etc/thalweg/users\"";
        assert_eq!((reply.status, reply.log_texts()), (401, vec![told]));
        for credentials in [":secret", "user", ""] {
            assert_eq!(world.get_with("/f", &line(credentials)).status, 401, "{credentials}");
        }
        for field in ["Authorization: Basic !!\r\n", "Authorization: Bearer x\r\n", "Authorization: Basic\r\n"] {
            assert_eq!(world.get_with("/f", field).status, 401, "{field}");
        }
    }

    #[test]
    fn files_that_can_t_be_used_let_nobody_in() {
        let mut missing = world("auth_basic x; auth_basic_user_file none;");
        let reply = missing.get_with("/f", &line("user:secret"));
        assert_eq!(reply.status, 403);
        let told = "[error] open() \"/etc/thalweg/none\" failed (2: No such file or directory)";
        assert_eq!(reply.log_texts(), [told]);
        let mut closed = world(CLOSED).failing("/etc/thalweg/users", 13);
        assert_eq!(closed.get_with("/f", &line("user:secret")).status, 500);
        assert_eq!(world(CLOSED).get_with("/f", &line("broken:x")).status, 500);
    }

    #[test]
    fn the_file_and_the_realm_may_be_chosen_by_variables() {
        let mut world = world(
            "set $realm x; location /f { if ($arg_free) { set $realm off; } auth_basic $realm; auth_basic_user_file $arg_file; }",
        );
        assert_eq!(world.get_with("/f?file=other", &line("only:x")).status, 200);
        assert_eq!(world.get_with("/f?file=users", &line("only:x")).status, 401);
        assert_eq!(world.get_with("/f?file=/etc/thalweg/other", &line("only:x")).status, 200);
        assert_eq!(world.get("/f?free=1").status, 200);
    }

    #[test]
    fn satisfy_joins_addresses_and_passwords() {
        let mut any = world(&format!("satisfy any; allow 192.0.2.1; deny all; {CLOSED}"));
        let reply = any.get("/f");
        assert_eq!((reply.status, reply.has("WWW-Authenticate")), (200, false));
        any.peer = crate::http::exchange::Endpoint::Inet("192.0.2.2:1".parse().unwrap());
        assert_eq!(any.get("/f").status, 401);
        assert_eq!(any.get_with("/f", &line("user:secret")).status, 200);
        let mut all = world(&format!("allow 192.0.2.1; deny all; {CLOSED}"));
        assert_eq!(all.get("/f").status, 401);
        assert_eq!(all.get_with("/f", &line("user:secret")).status, 200);
        all.peer = any.peer.clone();
        assert_eq!(all.get_with("/f", &line("user:secret")).status, 403);
    }

    #[test]
    fn who_is_not_let_in_waits_for_the_refusal() {
        let mut world = world(&format!("auth_delay 3s; {CLOSED}"));
        let before = world.env.now.monotonic_ms;
        assert_eq!(world.get_with("/f", &line("user:secret")).status, 200);
        assert_eq!(world.env.now.monotonic_ms, before);
        let reply = world.get_with("/f", &line("user:guess"));
        assert_eq!((reply.status, world.env.now.monotonic_ms), (401, before + 3000));
        assert_eq!(reply.field("WWW-Authenticate"), "Basic realm=\"closed \"");
    }

    #[test]
    fn the_challenge_survives_an_error_page() {
        let mut world = world(&format!("error_page 401 /page; {CLOSED} location /page {{ auth_basic off; internal; }}"))
            .file("/srv/page", "log in");
        let reply = world.get("/f");
        assert_eq!((reply.status, reply.text(), reply.has("WWW-Authenticate")), (401, "log in", true));
    }
}
