//! What a sealed private key is bound to.

use domain::DkimKeyId;

/// Says what the sealed octets are, so that nothing else sealed under the same master key passes for them.
const PURPOSE: &[u8] = b"mailfleet/dkim-key/";

/// The data that a private key is sealed and opened with beside the master key: its purpose and the id of
/// its row, so that a sealed key moved to another row does not open.
pub fn dkim_aad(key: DkimKeyId) -> Vec<u8> {
    [PURPOSE, key.as_uuid().as_bytes()].concat()
}
