//! What the chains of one snapshot have in common, made once.

use cairn_authz::Egress;
use cairn_authz::jwt::InlineKeys;
use cairn_config_schema::snapshot::Snapshot;

/// The parts that are the same for every port. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub(super) egress: Egress,
    pub(super) keys: InlineKeys,
}

impl Common {
    /// Those of a snapshot.
    pub fn compile(snapshot: &Snapshot) -> Self {
        Self {
            egress: Egress::compile(&snapshot.network),
            keys: InlineKeys::read(snapshot.authentications.all()),
        }
    }
}
