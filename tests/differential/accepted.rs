//! The differences to nginx that are meant, each with its reason.

use super::Answer;

/// One case and what both made of it.
pub struct Exchange {
    pub bytes: Vec<u8>,
    /// Which server of the site was asked: 1 merges slashes, 2 does not.
    pub server: usize,
    pub nginx: Vec<Answer>,
    pub ours: Vec<Answer>,
}

/// A difference that is meant.
pub struct Accepted {
    pub what: &'static str,
    pub why: &'static str,
    /// A request that shows it, sent to the first server.
    pub example: &'static [u8],
    /// Whether this is why the answers of a case differ.
    pub explains: fn(&Exchange) -> bool,
}

pub const ACCEPTED: &[Accepted] = &[
    Accepted {
        what: "a host that RFC 3986 does not allow is 400",
        why: "nginx 1.22 let most pass; so it is since 1.29 (RFC 3986 host validation)",
        example: b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
        explains: |exchange| exchange.we_refuse() && exchange.hosts().any(|host| !is_rfc_3986_host(host)),
    },
    Accepted {
        what: "the authority of an absolute form may hold all that RFC 3986 allows in a host",
        why: "the same rules as for the Host field; nginx 1.22 takes letters, digits, dots and hyphens there",
        example: b"GET http://a_b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        explains: |exchange| {
            let usual =
                |host: &[u8]| host.iter().all(|&byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte));
            exchange.nginx_refuses()
                && exchange.authorities().any(|host| is_rfc_3986_host(host) && !usual(host))
        },
    },
    Accepted {
        what: "of several mistakes in one head another may decide on the status",
        why: "version, authority, fields and path are judged in that order; nginx judges the path, and so the line, first",
        example: b"GET /.. HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
        explains: |exchange| {
            let is_refusal = |answer: Option<&Answer>| {
                answer.is_some_and(|answer| answer.closes && [400, 405, 501, 505].contains(&answer.status))
            };
            let is_doubtful =
                |line: &[u8]| line.iter().any(|byte| b".%\0".contains(byte)) || find(line, b"://");
            let (nginx, ours) = exchange.first_difference();
            is_refusal(nginx)
                && is_refusal(ours)
                && exchange.bytes.split(|&byte| byte == b'\n').any(is_doubtful)
        },
    },
    Accepted {
        what: "CONNECT takes an authority with a port",
        why: "as in nginx since 1.31, which answers 405 where there is no tunnel; 1.22 takes paths only, for other methods",
        example: b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        explains: |exchange| {
            let (nginx, ours) = exchange.first_difference();
            let is_either = |answer: &Answer| [400, 405].contains(&answer.status);
            find(&exchange.bytes, b"CONNECT") && nginx.is_some_and(is_either) && ours.is_some_and(is_either)
        },
    },
    Accepted {
        what: "another method than GET without a version gets its 400 with a head",
        why: "HTTP/0.9 has GET alone, so it is none; nginx answers in the manner of 0.9",
        example: b"POST /\r\n",
        explains: |exchange| {
            let (nginx, ours) = exchange.first_difference();
            let is_page = |answer: &Answer| answer.body.starts_with(b"<html>\r\n<head><title>400");
            nginx.is_some_and(|answer| answer.status == 0 && is_page(answer))
                && ours.is_some_and(|answer| answer.status == 400)
        },
    },
    Accepted {
        what: "100 Continue is sent only for a body, and only if it is wanted",
        why: "RFC 9110 section 10.1.1; where the answer is final already, the connection ends instead (README)",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        explains: |exchange| {
            let finals: Vec<&Answer> = exchange.nginx.iter().filter(|answer| answer.status != 100).collect();
            let is_same = |(nginx, ours): (&&Answer, &Answer)| {
                Answer { closes: ours.closes, ..(*nginx).clone() } == *ours
            };
            let closes_earlier = exchange.ours.last().is_some_and(|answer| answer.closes);
            exchange.nginx.len() > finals.len()
                && finals.iter().zip(&exchange.ours).all(is_same)
                && (finals.len() == exchange.ours.len()
                    || closes_earlier && finals.len() > exchange.ours.len())
        },
    },
    Accepted {
        what: "the Connection field is a list of tokens",
        why: "RFC 9110 section 7.6.1; nginx looks for `close` anywhere in it, and at the last such field",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n",
        explains: |exchange| {
            let (nginx, ours) = exchange.first_difference();
            let same_but_for_close = match (nginx, ours) {
                (Some(nginx), Some(ours)) => Answer { closes: ours.closes, ..nginx.clone() } == *ours,
                _ => false,
            };
            same_but_for_close && exchange.count(b"connection") > 0
        },
    },
    Accepted {
        what: "tabs around the value of a field are not part of it",
        why: "RFC 9110 section 5.5 counts the tab as white space; nginx trims spaces only",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nX: \ty\r\n\r\n",
        explains: |exchange| exchange.fields().any(|(_, value)| has_outer_tab(value)),
    },
    Accepted {
        what: "a field line with a bare CR in it or before its end is 400",
        why: "RFC 9112 section 2.2; some take it for a line's end. nginx skips or keeps it (README)",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n",
        explains: |exchange| exchange.we_refuse() && exchange.lines().any(has_bare_cr),
    },
    Accepted {
        what: "a field line without a colon is 400",
        why: "RFC 9112 section 5; nginx takes or skips it as a name without a value (README)",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        explains: |exchange| exchange.we_refuse() && exchange.lines().any(|line| !line.contains(&b':')),
    },
    Accepted {
        what: "a chunked body that is broken already is 400, whatever else the answer would be",
        why: "nginx looks at it too late for its redirects and error pages, and then closes",
        example: b"GET /file/dir HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        explains: |exchange| {
            let is_page = |answer: &Answer| answer.status >= 300 && answer.closes;
            exchange.we_refuse()
                && exchange.count(b"transfer-encoding") > 0
                && exchange.first_difference().0.is_some_and(is_page)
        },
    },
    Accepted {
        what: "a trailer line without a colon, or with a bare CR, is 400",
        why: "RFC 9112 section 7.1.2: trailer fields are fields; nginx looks at their line ends only",
        example: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n",
        explains: |exchange| {
            let is_bad = |line: &&[u8]| !line.contains(&b':') || has_bare_cr(line);
            exchange.we_refuse()
                && exchange.count(b"transfer-encoding") > 0
                && exchange.behind_last_chunk().is_some_and(|line| is_bad(&line))
        },
    },
    Accepted {
        what: "a bare LF in the framing of a chunked body is 400",
        why: "as in nginx since 1.27 (RFC 9112 section 7.1); 1.22 takes it",
        example: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
        explains: |exchange| {
            exchange.we_refuse() && exchange.count(b"transfer-encoding") > 0 && exchange.has_bare_lf_in_body()
        },
    },
    Accepted {
        what: "fields of one name are joined in $http_NAME",
        why: "as nginx does since 1.23; 1.22 shows the first",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\n",
        explains: |exchange| exchange.count(b"x") > 1 && exchange.without_known_lines().is_same(),
    },
    Accepted {
        what: "$content_length is empty for a chunked body",
        why: "nginx shows the size of the buffer that it throws the body away with, behind a `return`",
        example: b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        explains: |exchange| {
            exchange.count(b"transfer-encoding") > 0 && exchange.without_known_lines().is_same()
        },
    },
    Accepted {
        what: "a head that the client leaves unfinished gets no answer, whatever is wrong with it",
        why: "it is judged as a whole; nginx looks at each byte as it comes. Only the method, and each field line's syntax, \
              are judged at once",
        example: b"GET a ",
        explains: |exchange| {
            let common = exchange.ours.len();
            let is_unfinished = !exchange.bytes.ends_with(b"\n\n") && !exchange.bytes.ends_with(b"\n\r\n");
            exchange.nginx.len() == common + 1
                && exchange.nginx[..common] == exchange.ours[..]
                && exchange.nginx[common].status >= 400
                && is_unfinished
        },
    },
    Accepted {
        what: "the connection stays open behind 412",
        why: "nginx says so too, and then closes: its filter for conditions ends the request as a failed one",
        example: b"GET / HTTP/1.1\r\nHost: a\r\nIf-Match: \"x\"\r\n\r\nGET /end HTTP/1.1\r\nHost: a\r\n\r\n",
        explains: |exchange| {
            let (Some(last), common) = (exchange.nginx.last(), exchange.nginx.len()) else { return false };
            // Behind an answer to HEAD what HTTP/0.9 gets looks like its body.
            let is_same = |ours: &Answer| Answer { body: ours.body.clone(), ..last.clone() } == *ours;
            last.status == 412
                && exchange.ours.len() >= common
                && exchange.ours[..common - 1] == exchange.nginx[..common - 1]
                && is_same(&exchange.ours[common - 1])
        },
    },
];

impl Exchange {
    /// Where the answers part: nginx's and ours, as far as there is one.
    fn first_difference(&self) -> (Option<&Answer>, Option<&Answer>) {
        let same = self.nginx.iter().zip(&self.ours).take_while(|(nginx, ours)| nginx == ours).count();
        (self.nginx.get(same), self.ours.get(same))
    }

    /// Whether the first answer that differs is our 400 (without a head for HTTP/0.9), behind which we close.
    fn we_refuse(&self) -> bool {
        let is_refusal = |answer: &Answer| {
            answer.status == 400
                || answer.status == 0 && answer.body.starts_with(b"<html>\r\n<head><title>400")
        };
        self.first_difference().1.is_some_and(|answer| is_refusal(answer) && answer.closes)
    }

    /// Whether nginx's first answer that differs is a 400.
    fn nginx_refuses(&self) -> bool {
        self.first_difference().0.is_some_and(|answer| answer.status == 400)
    }

    pub fn is_same(&self) -> bool {
        self.nginx == self.ours
    }

    /// The answers without the values of repeated fields and the lengths of chunked bodies, which always differ, so that
    /// other differences can be told.
    pub fn without_known_lines(&self) -> Exchange {
        let repeated = self.count(b"x") > 1;
        let chunked = self.count(b"transfer-encoding") > 0;
        let is_known =
            |line: &&[u8]| repeated && line.starts_with(b"x=") || chunked && line.starts_with(b"length=");
        let strip = |answer: &Answer| {
            let lines = answer.body.split(|&byte| byte == b'\n').filter(|line| !is_known(line));
            Answer { body: lines.collect::<Vec<_>>().join(&b'\n'), ..answer.clone() }
        };
        Exchange {
            bytes: self.bytes.clone(),
            server: self.server,
            nginx: self.nginx.iter().map(strip).collect(),
            ours: self.ours.iter().map(strip).collect(),
        }
    }

    /// Lines of heads, without the request lines and the ends of lines. Bodies, as far as they can be told, do not count.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut is_head = false;
        self.bytes.split(|&byte| byte == b'\n').filter_map(move |line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let was_head = is_head;
            // A request line may stand right behind a body.
            is_head = !line.is_empty() && (is_head || find(line, b"HTTP/"));
            (was_head && is_head).then_some(line)
        })
    }

    /// Whether behind an empty line there is an LF without its CR.
    fn has_bare_lf_in_body(&self) -> bool {
        let ends = [&b"\n\r\n"[..], b"\n\n"]
            .map(|end| memchr::memmem::find(&self.bytes, end).map(|at| at + end.len()));
        let start = ends.into_iter().flatten().min().unwrap_or(self.bytes.len());
        let body = &self.bytes[start..];
        body.iter().enumerate().any(|(at, &byte)| byte == b'\n' && (at == 0 || body[at - 1] != b'\r'))
    }

    /// The line behind the last chunk of the first body.
    fn behind_last_chunk(&self) -> Option<&[u8]> {
        let strip = |line| <[u8]>::strip_suffix(line, b"\r").unwrap_or(line);
        let mut lines = self.bytes.split(|&byte| byte == b'\n').map(strip);
        lines.find(|line| line.is_empty())?;
        lines.find(|line| line.starts_with(b"0"))?;
        lines.next().filter(|line| !line.is_empty())
    }

    /// Names and values of all lines that have a colon; values with the spaces around them.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }

    fn count(&self, name: &[u8]) -> usize {
        self.fields().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
    }

    /// Values of Host fields, and authorities of absolute forms.
    fn hosts(&self) -> impl Iterator<Item = &[u8]> {
        let fields = self.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"host"));
        fields.map(|(_, value)| value.trim_ascii()).chain(self.authorities())
    }

    fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|&byte| byte == b'\n').filter_map(|line| {
            let start = line.windows(3).position(|window| window == b"://")? + 3;
            let length = line[start..].iter().take_while(|byte| !b"/? \r".contains(byte)).count();
            Some(&line[start..start + length])
        })
    }
}

/// Written apart from the server's own check, for the difference to mean something.
fn is_rfc_3986_host(host: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(host) else { return false };
    let (name, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, ""),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
    let name_is_good = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => !literal.is_empty() && literal.chars().all(|c| allowed(c) || c == ':'),
        None => {
            let escapes_are_good = name.match_indices('%').all(|(at, _)| {
                name.as_bytes().get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
            });
            escapes_are_good && name.chars().all(|c| allowed(c) || c == '%')
        }
    };
    let port_is_good =
        port.is_empty() || port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
    name_is_good && port_is_good
}

fn has_outer_tab(value: &[u8]) -> bool {
    let is_space = |byte: &&u8| matches!(**byte, b' ' | b'\t');
    value
        .iter()
        .take_while(is_space)
        .chain(value.iter().rev().take_while(is_space))
        .any(|&byte| byte == b'\t')
}

fn find(text: &[u8], piece: &[u8]) -> bool {
    memchr::memmem::find(text, piece).is_some()
}

fn has_bare_cr(line: &[u8]) -> bool {
    line.contains(&b'\r')
}
