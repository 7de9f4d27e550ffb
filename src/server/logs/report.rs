//! What the sinks themselves have to say. They can't log it: it goes back to the loop, which queues it for the main
//! error log. Each kind of failure is said once, when it begins, so that no failure feeds itself.

use crate::base::level::Level;

/// Most reports kept between two turns.
const REPORTS_MAX: usize = 64;

/// A message about a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub level: Level,
    pub text: String,
}

#[derive(Debug, Default)]
pub(super) struct Reports {
    list: Vec<Report>,
    suppressed: u64,
}

impl Reports {
    pub(super) fn add(&mut self, level: Level, text: String) {
        if self.list.len() < REPORTS_MAX {
            self.list.push(Report { level, text });
        } else {
            self.suppressed += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Report> {
        if self.suppressed > 0 {
            let text = format!("{} more messages about logs were left out", self.suppressed);
            self.list.push(Report { level: Level::Alert, text });
            self.suppressed = 0;
        }
        std::mem::take(&mut self.list)
    }
}
