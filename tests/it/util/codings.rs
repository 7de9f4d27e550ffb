//! Content codings, undone by other means than the server's.

use super::client::Response;

/// What gzip data stands for.
pub fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut inflate = zlib_rs::Inflate::new(true, 31);
    let mut text = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let (taken, made) = (inflate.total_in() as usize, inflate.total_out());
        let status = inflate.decompress(&packed[taken..], &mut piece, zlib_rs::InflateFlush::NoFlush);
        text.extend_from_slice(&piece[..(inflate.total_out() - made) as usize]);
        match status.expect("gzip") {
            zlib_rs::Status::StreamEnd => return text,
            _ => assert!(inflate.total_out() > made, "cut short"),
        }
    }
}

/// Text as gzip.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let config = zlib_rs::DeflateConfig { window_bits: 31, ..zlib_rs::DeflateConfig::default() };
    let mut packed = vec![0; text.len() + 1000];
    let mut deflate = zlib_rs::Deflate::new_with_config(config);
    deflate.compress(text, &mut packed, zlib_rs::DeflateFlush::Finish).expect("gzip");
    packed.truncate(deflate.total_out() as usize);
    packed
}

/// A response's content without its coding.
pub fn decoded(response: &Response) -> Vec<u8> {
    decoded_from(&response.body, response.header("content-encoding"))
}

/// The same for a body in this coding.
pub fn decoded_from(body: &[u8], coding: Option<&str>) -> Vec<u8> {
    match coding {
        None => body.to_vec(),
        Some("gzip") => gunzip(body),
        Some("br") => {
            let mut text = Vec::new();
            brotli::BrotliDecompress(&mut &*body, &mut text).expect("brotli");
            text
        }
        Some("zstd") => {
            let mut text = Vec::with_capacity(8 << 20);
            zstd_safe::DCtx::create().decompress(&mut text, body).expect("zstd");
            text
        }
        Some(other) => panic!("{other}"),
    }
}
