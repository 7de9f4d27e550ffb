//! gRPC's health checking protocol (grpc.health.v1): what is asked, and what a good answer is. No more of Protocol
//! Buffers than these two messages need.

/// The method that is called.
pub const PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u64 = 1;
/// `grpc-status` of a call that went well.
const OK: u32 = 0;

/// `health_check type=grpc`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcCheck {
    /// `grpc_service`: the service that is asked about; empty for the server as a whole.
    pub service: Box<[u8]>,
    /// `grpc_status`: a status that is good too, for servers that do not have the method (12); 0 for none.
    pub status: u32,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `grpc-status` is none, or not a good one.
    Status,
    /// The service does not serve, or the message is none.
    NotServing,
}

impl GrpcCheck {
    /// The request's body: a `HealthCheckRequest` in gRPC's frame.
    pub fn request(&self) -> Vec<u8> {
        let mut message = Vec::new();
        if !self.service.is_empty() {
            // Field 1, of a length.
            message.push(0x0a);
            push_varint(self.service.len() as u64, &mut message);
            message.extend_from_slice(&self.service);
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut body = vec![0];
        body.extend_from_slice(&length.to_be_bytes());
        body.append(&mut message);
        body
    }

    /// Judges a response by its `grpc-status` and its body.
    ///
    /// # Errors
    /// It is not good.
    pub fn judge(&self, status: Option<&[u8]>, body: &[u8]) -> Result<(), Refusal> {
        let status = status.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse::<u32>().ok());
        match status {
            Some(OK) if serving_status(body) == Some(SERVING) => Ok(()),
            Some(OK) => Err(Refusal::NotServing),
            Some(status) if status == self.status => Ok(()),
            _ => Err(Refusal::Status),
        }
    }
}

/// `HealthCheckResponse.status` of a body with one message, which is not compressed.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (&[flag, a, b, c, d], message) = body.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if flag != 0 || message.len() != length {
        return None;
    }
    let mut rest = message;
    // What is not there has the value 0 (proto3); of several the last one counts.
    let mut found = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                found = if tag >> 3 == 1 { value } else { found };
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// At most ten bytes; bits beyond 64 are an error.
fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(service: &str, status: u32) -> GrpcCheck {
        GrpcCheck { service: service.as_bytes().into(), status }
    }

    #[test]
    fn the_request_names_the_service() {
        assert_eq!(check("", 0).request(), b"\0\0\0\0\0");
        assert_eq!(check("a.B", 0).request(), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = check(&"x".repeat(200), 0).request();
        assert_eq!(long[..8], *b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(long.len(), 208);
    }

    #[test]
    fn a_service_that_serves_is_good() {
        let plain = check("", 0);
        assert_eq!(plain.judge(Some(b"0"), b"\0\0\0\0\x02\x08\x01"), Ok(()));
        // Fields that are not known are passed over, and the last value counts.
        let odd = b"\0\0\0\0\x16\x08\x02\x12\x02ab\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x08\x01";
        assert_eq!(plain.judge(Some(b"0"), odd), Ok(()));
        let refused: &[(_, &[u8], _)] = &[
            (Some("0"), b"\0\0\0\0\x02\x08\x02", Refusal::NotServing),
            (Some("0"), b"\0\0\0\0\0", Refusal::NotServing),
            (Some("0"), b"", Refusal::NotServing),
            (Some("0"), b"\x01\0\0\0\x02\x08\x01", Refusal::NotServing),
            (Some("0"), b"\0\0\0\0\x03\x08\x01", Refusal::NotServing),
            (Some("0"), b"\0\0\0\0\x01\x08", Refusal::NotServing),
            (Some("0"), b"\0\0\0\0\x02\x0a\x7f", Refusal::NotServing),
            (Some("12"), b"", Refusal::Status),
            (Some("5"), b"\0\0\0\0\x02\x08\x01", Refusal::Status),
            (Some("x"), b"\0\0\0\0\x02\x08\x01", Refusal::Status),
            (None, b"\0\0\0\0\x02\x08\x01", Refusal::Status),
        ];
        for (status, body, why) in refused {
            assert_eq!(plain.judge(status.map(str::as_bytes), body), Err(*why), "{status:?} {body:?}");
        }
    }

    #[test]
    fn another_status_may_be_good_too() {
        let lenient = check("", 12);
        assert_eq!(lenient.judge(Some(b"12"), b""), Ok(()));
        assert_eq!(lenient.judge(Some(b"0"), b"\0\0\0\0\x02\x08\x01"), Ok(()));
        assert_eq!(lenient.judge(Some(b"0"), b"\0\0\0\0\x02\x08\x02"), Err(Refusal::NotServing));
        assert_eq!(lenient.judge(Some(b"14"), b""), Err(Refusal::Status));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, behind: Vec<u8>) {
            let mut bytes = Vec::new();
            push_varint(value, &mut bytes);
            bytes.extend_from_slice(&behind);
            let mut input = &bytes[..];
            prop_assert_eq!(take_varint(&mut input), Some(value));
            prop_assert_eq!(input, &behind[..]);
        }

        #[test]
        fn no_answer_panics(status: Option<Vec<u8>>, body: Vec<u8>) {
            let _ = check("", 0).judge(status.as_deref(), &body);
        }
    }
}
