//! A store that is fed texts, and what it then has in force, as short lines.

use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::{Loaded, Resources};
use cairn_config_schema::store::{SourceFile, Store, Update};

/// Feeds files to the store; `Err` is a file that cannot be read.
pub fn feed(store: &mut Store, files: &[(&str, Result<&str, &str>)]) -> Update {
    let files: Vec<_> = files
        .iter()
        .map(|(path, content)| SourceFile {
            path: Arc::from(*path),
            content: content
                .map(|text| text.as_bytes().into())
                .map_err(Arc::from),
        })
        .collect();
    store.update(&files)
}

/// A policy of the namespace `shop` with one rule for a path.
pub fn policy(name: &str, path: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {name}
  namespace: shop
spec:
  targetRefs: [{{kind: Service, group: '', name: web}}]
  rules:
  - to: [{{operation: {{paths: [\"{path}\"]}}}}]
"
    )
}

/// `name state path` of each policy in force.
pub fn in_force(resources: &Resources) -> Vec<String> {
    resources
        .authorization_policies
        .iter()
        .map(|(key, loaded)| match loaded {
            Loaded::Good(o) => format!("{} good {}", key.name, path_of(&o.spec)),
            Loaded::KeptLastGood(o) => format!("{} kept {}", key.name, path_of(&o.spec)),
            Loaded::Broken(_) => format!("{} broken", key.name),
        })
        .collect()
}

fn path_of(spec: &cairn_config_schema::resources::istio::AuthorizationPolicySpec) -> String {
    let rule = spec.rules.as_ref().unwrap()[0].as_ref().unwrap();
    let operation = rule.to.as_ref().unwrap()[0].operation.as_ref().unwrap();
    operation.paths.as_ref().unwrap()[0].clone()
}

/// The findings with a code, as `file:line:column message`.
pub fn found(update: &Update, code: Code) -> Vec<String> {
    let line = |d: &Diagnostic| format!("{} {}", d.location.as_ref().unwrap(), d.message);
    update
        .diagnostics
        .iter()
        .filter(|d| d.code == code)
        .map(line)
        .collect()
}

/// The key of a policy.
pub fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}
