//! `.gnu_debugdata`: an ELF file with the names of a stripped module's functions, compressed with xz ("mini debug info").

use std::io::Read as _;

use xz2::{read::XzDecoder, stream::Stream};

/// Its section.
pub const SECTION: &str = ".gnu_debugdata";

/// Bytes that it may unpack to. libc's has 0.2 MB, a browser's some ten.
const MAX_BYTES: u64 = 128 << 20;

/// Memory that the decoder may take: the dictionary of `xz -9` and its own.
const MAX_DECODER_BYTES: u64 = 96 << 20;

/// Unpacks the section, within bounds.
pub fn decompress(compressed: &[u8]) -> Result<Vec<u8>, String> {
    let stream = Stream::new_stream_decoder(MAX_DECODER_BYTES, 0).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let decoder = XzDecoder::new_stream(compressed, stream);
    decoder.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it unpacks to more than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use xz2::write::XzEncoder;

    use super::*;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn what_was_packed_comes_back() {
        assert_eq!(decompress(&compressed(b"names")), Ok(b"names".to_vec()));
    }

    #[test]
    fn broken_and_oversized_data_is_an_error() {
        assert!(decompress(b"no xz").is_err());
        let mut broken = compressed(b"names");
        broken.truncate(broken.len() / 2);
        assert!(decompress(&broken).is_err());
        let bomb = compressed(&vec![0; MAX_BYTES as usize + 1]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(decompress(&bomb), Err(format!("it unpacks to more than {MAX_BYTES} bytes")));
    }
}
