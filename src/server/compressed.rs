//! Compressed forms of files that are asked for again and again, for one worker: the second client pays nothing.
//!
//! A form belongs to one version of a file ([`FileIdentity`]) and one way to compress it. All of them together are
//! bounded; the one that was used least recently gives way.

use std::collections::HashMap;
use std::rc::Rc;

use crate::http::body_filters::Compression;
use crate::server::files::FileIdentity;

/// The largest form that is kept, in bytes.
pub const LARGEST_FORM: usize = 1 << 20;
/// All forms of a worker together, in bytes.
const TOTAL_BYTES: usize = 32 << 20;
/// How many forms there may be: the one that gives way is looked for among all.
const MOST_FORMS: usize = 4096;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 256;

/// Which form of which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FormKey {
    /// The version of the file.
    pub file: FileIdentity,
    /// How it is compressed.
    pub compression: Compression,
}

struct Form {
    bytes: Rc<[u8]>,
    /// When it was used last, in uses of the whole cache.
    used: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub struct CompressedForms {
    forms: HashMap<FormKey, Form, foldhash::fast::RandomState>,
    bytes: usize,
    uses: u64,
}

impl CompressedForms {
    /// The form, if it is there.
    pub fn find(&mut self, key: &FormKey) -> Option<Rc<[u8]>> {
        let form = self.forms.get_mut(key)?;
        self.uses += 1;
        form.used = self.uses;
        Some(form.bytes.clone())
    }

    /// Keeps a form, unless it is too large.
    pub fn keep(&mut self, key: FormKey, bytes: Rc<[u8]>) {
        if bytes.len() > LARGEST_FORM {
            return;
        }
        self.uses += 1;
        self.bytes += bytes.len() + ENTRY_BYTES;
        let form = Form { bytes, used: self.uses };
        if let Some(before) = self.forms.insert(key, form) {
            self.bytes -= before.bytes.len() + ENTRY_BYTES;
        }
        while self.bytes > TOTAL_BYTES || self.forms.len() > MOST_FORMS {
            let Some(oldest) = self.forms.iter().min_by_key(|(_, form)| form.used).map(|(key, _)| *key)
            else {
                return;
            };
            if let Some(form) = self.forms.remove(&oldest) {
                self.bytes -= form.bytes.len() + ENTRY_BYTES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body_filters::Method;

    fn key(inode: u64) -> FormKey {
        let compression = Compression { method: Method::Brotli, level: 5, window_bits: 19 };
        FormKey { file: FileIdentity::for_test(inode), compression }
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_gives_way() {
        let mut forms = CompressedForms::default();
        let large: Rc<[u8]> = vec![0; LARGEST_FORM].into();
        for inode in 0..100 {
            forms.keep(key(inode), large.clone());
            assert!(forms.find(&key(0)).is_some());
            assert!(forms.bytes <= TOTAL_BYTES);
        }
        assert!(forms.find(&key(1)).is_none() && forms.find(&key(99)).is_some());
        forms.keep(key(200), vec![0; LARGEST_FORM + 1].into());
        assert!(forms.find(&key(200)).is_none());
    }

    #[test]
    fn another_form_of_the_same_takes_its_place() {
        let mut forms = CompressedForms::default();
        forms.keep(key(1), Rc::from(&b"one"[..]));
        forms.keep(key(1), Rc::from(&b"other"[..]));
        assert_eq!(forms.find(&key(1)).as_deref(), Some(&b"other"[..]));
        assert_eq!(forms.bytes, 5 + ENTRY_BYTES);
    }
}
