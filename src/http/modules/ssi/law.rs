//! The law of pages: the same output for any split of the body, and never more than its bounds. Shared by the corpora,
//! the fuzz targets and the tests.

use std::cell::OnceCell;

use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::laws;
use crate::http::site::SiteHandle;

use super::machine::{MOST_CONDITIONS, ROOM};
use super::{Part, Progress, Ssi, filter};

const CONFIGURATION: &str = "error_log stderr; events {} http { ssi on; ssi_value_length 64; server { listen 80; \
                             set $text 'a<b>\"c&d'; location / { return 200 page; } } }";

/// A page comes out the same whether it comes at once, by `step` bytes, or byte by byte.
pub fn law_any_split_gives_the_same(page: &[u8], step: usize) {
    let whole = followed(page, page.len().max(1));
    assert_eq!(followed(page, step.max(1)), whole);
    assert_eq!(followed(page, 1), whole);
    if memchr::memmem::find(page, b"<!--#").is_none() {
        assert_eq!(whole, page, "without commands nothing changes");
    }
}

/// What comes out of a page that comes by pieces of so many bytes. Includes are shown as
/// `{URI?ARGS STUB WAIT SET}`, and are answered by their URI where a variable takes it.
pub fn followed(page: &[u8], piece: usize) -> Vec<u8> {
    thread_local! {
        static SITE: OnceCell<SiteHandle> = const { OnceCell::new() };
    }
    let site = SITE.with(|cell| cell.get_or_init(|| laws::site(CONFIGURATION)).clone());
    let mut env = laws::env();
    let mut context = Context { site: &site, env: &mut env };
    let mut exchange = laws::exchange(&site);
    exchange.uri = b"/folder/page.html".to_vec();
    exchange.response.set_content_type(b"text/html");
    filter(&mut exchange, &mut context);
    let machine = exchange.weaving.take().and_then(|weaving| weaving.page).expect("ssi is on");
    run(*machine, &mut exchange, &mut context, page, piece)
}

fn run(
    mut machine: Ssi,
    exchange: &mut Exchange,
    context: &mut Context,
    page: &[u8],
    piece: usize,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = page;
    // Each call takes input, or gives output, or waits once for each include: more are a loop without an end.
    for _ in 0..page.len() * 4 + 16 {
        let fed = rest.len().min(piece);
        let mut input = &rest[..fed];
        let mut parts = Vec::new();
        let progress = machine.take(exchange, context, &mut input, fed == rest.len(), &mut parts);
        rest = &rest[fed - input.len()..];
        let captured = show(parts, progress, &mut out);
        match progress {
            Progress::Done => {
                assert!(rest.is_empty(), "the page is taken to its end");
                return out;
            }
            Progress::Waiting => machine.resume(captured),
            Progress::Starved => assert!(input.is_empty()),
            Progress::Full => {}
        }
        assert!(machine.open_conditions() <= MOST_CONDITIONS);
    }
    panic!("no end");
}

/// Appends parts as text, and gives what a variable takes of the last one.
fn show(parts: Vec<Part>, progress: Progress, out: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut bytes = 0;
    let mut captured = None;
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.into_iter().enumerate() {
        match part {
            Part::Bytes(text) => {
                assert!(!text.is_empty(), "no part is empty");
                assert!(bytes < ROOM, "it returns once there is so much");
                bytes += text.len();
                out.extend_from_slice(&text);
            }
            Part::Include(include) => {
                let is_waited_for = index == last && progress == Progress::Waiting;
                assert_eq!(include.wait, is_waited_for, "nothing follows what is waited for");
                assert_eq!(include.set.is_some(), include.order.captured);
                let order = &include.order;
                let text = [&order.uri[..], b"?", &order.args].concat();
                out.push(b'{');
                out.extend_from_slice(&text);
                let [stub, set] = [order.stub.as_ref(), include.set.as_ref()];
                for shown in [stub, include.wait.then(|| b"waits".to_vec()).as_ref(), set] {
                    out.push(b' ');
                    out.extend_from_slice(shown.map_or(b"-", |text| text));
                }
                out.push(b'}');
                captured = include.set.map(|_| text);
            }
        }
    }
    captured
}
