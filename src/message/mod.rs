//! One form of HTTP messages for every protocol version.
//!
//! Wire machines (`proto/`) fill and read these types; nothing above `proto/` asks which version a message came in.
//! A head keeps all its text in one recycled buffer and names pieces of it by [`Span`], so that a request served
//! on a warm connection allocates nothing.

mod etag;
mod field_name;
mod fields;
pub mod fuzz;
mod host;
mod method;
mod ranges;
mod request;
mod response;
mod status;
mod uri;

pub use etag::{if_match, if_none_match, if_range_is_etag, write_etag};
pub use field_name::FieldName;
pub use fields::{Field, Fields, Span};
pub use host::{Host, validate_host};
pub use method::Method;
pub use ranges::{RangeRequest, parse_content_range, parse_ranges};
pub use request::{RequestFacts, RequestFraming, RequestHead, Version};
pub use response::{ResponseFacts, ResponseFraming, ResponseHead};
pub use status::Status;
pub use uri::{Uri, UriError, check_unsafe_uri, normalize_uri};
