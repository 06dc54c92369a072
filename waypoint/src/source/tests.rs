//! What counts as a configuration file and what counts as a change of one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cairn_config_schema::resources::Loaded;
use cairn_config_schema::store::{self, Store};
use tempfile::TempDir;

use super::{Files, SourceFile, Watch};

/// File name and text of each source; an unreadable one has its reason after `!`.
fn told(sources: &[SourceFile], below: &Path) -> Vec<String> {
    let below = format!("{}/", below.display());
    sources
        .iter()
        .map(|source| {
            let path = source.path.replace(&below, "");
            match &source.text {
                Ok(text) => format!("{path}={text}"),
                Err(reason) => format!("{path}!{reason}"),
            }
        })
        .collect()
}

fn write(dir: &TempDir, path: &str, text: &str) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn look(dir: &TempDir, paths: &[PathBuf]) -> Vec<String> {
    let mut files = Files::new(paths.to_vec());
    files.refresh();
    told(files.sources(), dir.path())
}

/// A watch, and what it tells.
struct Told {
    _watch: Watch,
    changes: Receiver<Vec<String>>,
}

impl Told {
    fn by(dir: &TempDir, paths: &[PathBuf]) -> Self {
        let mut files = Files::new(paths.to_vec());
        files.refresh();
        let (sender, changes) = mpsc::channel();
        let below = dir.path().to_owned();
        let watch = files
            .watch(move |sources| sender.send(told(sources, &below)).unwrap())
            .unwrap();
        Self {
            _watch: watch,
            changes,
        }
    }

    /// Waits until the files are told to be these; what was in between does not matter.
    fn expect(&self, files: &[&str]) {
        let mut last = Vec::new();
        while last != files {
            match self.changes.recv_timeout(Duration::from_secs(20)) {
                Ok(told) => last = told,
                Err(_) => panic!("expected {files:?}, told last {last:?}"),
            }
        }
    }
}

#[test]
fn folder_gives_its_yaml_and_json_sorted_and_no_hidden_ones() {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "b.yaml",
        "a.json",
        "c/d.yml",
        "c/e.txt",
        ".hidden.yaml",
        ".git/x.yaml",
        "README.md",
    ] {
        write(&dir, path, "x");
    }
    assert_eq!(
        look(&dir, &[dir.path().to_owned()]),
        ["a.json=x", "b.yaml=x", "c/d.yml=x"]
    );
}

#[test]
fn file_that_is_named_is_taken_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "mesh.conf", "x");
    assert_eq!(look(&dir, &[dir.path().join("mesh.conf")]), ["mesh.conf=x"]);
}

#[test]
fn no_file_is_read_twice() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a/a.yaml", "x");
    symlink(dir.path().join("a"), dir.path().join("b")).unwrap();
    symlink(dir.path(), dir.path().join("a/loop")).unwrap();
    let twice = [dir.path().to_owned(), dir.path().join("a/a.yaml")];
    assert_eq!(look(&dir, &twice), ["a/a.yaml=x"]);
}

#[test]
fn what_can_not_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("latin.yaml"), b"a: \xe9").unwrap();
    symlink("nowhere.yaml", dir.path().join("dangling.yaml")).unwrap();
    let paths = [dir.path().to_owned(), dir.path().join("missing")];
    assert_eq!(
        look(&dir, &paths),
        [
            "latin.yaml!is not UTF-8: byte 3",
            "dangling.yaml!there is no such file or folder",
            "missing!there is no such file or folder",
        ]
    );
}

/// A folder of policies on a mount that has gone is not a folder that was deleted.
#[test]
fn a_link_to_a_folder_that_is_gone_makes_its_files_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    write(&elsewhere, "team/a.yaml", "x");
    symlink(elsewhere.path().join("team"), dir.path().join("team")).unwrap();
    let mut files = Files::new([dir.path().to_owned()]);
    files.refresh();
    assert_eq!(told(files.sources(), dir.path()), ["team/a.yaml=x"]);
    fs::remove_dir_all(elsewhere.path().join("team")).unwrap();
    files.refresh();
    assert_eq!(
        told(files.sources(), dir.path()),
        ["team/a.yaml!there is no such file or folder"],
        "what is behind it is known, so that it need not be feared"
    );
}

/// At a start nothing is known of what is behind it.
#[test]
fn a_dangling_link_behind_which_nothing_is_known_is_unreadable_itself() {
    let dir = tempfile::tempdir().unwrap();
    symlink("nowhere", dir.path().join("team")).unwrap();
    let mut files = Files::new([dir.path().to_owned()]);
    for _ in 0..2 {
        files.refresh();
        assert_eq!(
            told(files.sources(), dir.path()),
            ["team!there is no such file or folder"]
        );
    }
}

/// The two halves of last good together: every policy behind the link stays, nothing more is denied.
#[test]
fn a_linked_folder_that_goes_away_leaves_all_that_was_in_it_in_force() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (there, away) = (
        elsewhere.path().join("there"),
        elsewhere.path().join("away"),
    );
    let policy = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
                  metadata: {name: a, namespace: shop}, spec: {}}";
    write(&elsewhere, "there/a.yaml", policy);
    write(&elsewhere, "there/sub/empty.yaml", "# nothing yet\n");
    let link = dir.path().join("team");
    symlink(&there, &link).unwrap();
    let mut store = Store::default();
    // One path, or two of which one lies in the other.
    let (dir_path, sub) = (dir.path().to_owned(), link.join("sub"));
    for paths in [
        vec![dir_path],
        vec![link.clone(), sub.clone()],
        vec![sub, link],
    ] {
        let mut files = Files::new(paths);
        files.refresh();
        let update = store.update(&schema_sources(&files));
        assert_eq!(update.resources.authorization_policies.len(), 1);
        fs::rename(&there, &away).unwrap();
        for _ in 0..2 {
            files.refresh();
            let update = store.update(&schema_sources(&files));
            let policies: Vec<_> = update.resources.authorization_policies.values().collect();
            assert!(
                matches!(policies[..], [Loaded::KeptLastGood(_)]),
                "{policies:?}"
            );
            assert_eq!(update.resources.unreadable, [], "nothing is unknown");
        }
        let fresh = Store::default().update(&schema_sources(&files));
        assert!(
            !fresh.resources.unreadable.is_empty(),
            "a cold start denies"
        );
        fs::rename(&away, &there).unwrap();
    }
}

fn schema_sources(files: &Files) -> Vec<store::SourceFile<'_>> {
    let source = |file: &'_ SourceFile| store::SourceFile {
        path: file.path.clone(),
        content: match &file.text {
            Ok(text) => Ok(text.as_bytes().to_vec().into()),
            Err(reason) => Err(reason.as_str().into()),
        },
    };
    files.sources().iter().map(source).collect()
}

/// To open it would be to wait for a writer that may never come, before anything is served.
#[test]
fn a_fifo_is_refused_without_waiting_for_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("a.yaml");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    assert_eq!(
        look(&dir, &[dir.path().to_owned()]),
        ["a.yaml!is not a regular file"]
    );
}

#[test]
fn unchanged_file_keeps_its_text_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", "x");
    write(&dir, "b.yaml", "x");
    let mut files = Files::new([dir.path().to_owned()]);
    assert!(files.refresh(), "new");
    let before = files.sources().to_vec();
    assert!(!files.refresh(), "nothing has changed");
    write(&dir, "b.yaml", "y");
    assert!(files.refresh(), "b has");
    assert_eq!(told(files.sources(), dir.path()), ["a.yaml=x", "b.yaml=y"]);
    let same = |n: usize| {
        let (Ok(a), Ok(b)) = (&before[n].text, &files.sources()[n].text) else {
            return false;
        };
        std::sync::Arc::ptr_eq(a, b)
    };
    assert!(same(0) && !same(1));
}

/// A large file's text is let go after a change was told; it must be there again for the next.
#[test]
fn large_file_is_whole_in_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let large = "x".repeat(100_000);
    write(&dir, "large.yaml", &large);
    write(&dir, "small.yaml", "1");
    let told = Told::by(&dir, &[dir.path().to_owned()]);
    let large = format!("large.yaml={large}");
    write(&dir, "small.yaml", "2");
    told.expect(&[&large, "small.yaml=2"]);
    write(&dir, "small.yaml", "3");
    told.expect(&[&large, "small.yaml=3"]);
}

#[test]
fn folder_that_can_not_be_listed_keeps_its_files_as_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "policies/deny.yaml", "x");
    let policies = dir.path().join("policies");
    let mut files = Files::new([policies.clone()]);
    files.refresh();
    fs::rename(&policies, dir.path().join("elsewhere")).unwrap();
    assert!(files.refresh());
    assert_eq!(
        told(files.sources(), dir.path()),
        ["policies/deny.yaml!there is no such file or folder"],
        "a policy whose folder is gone is not a policy that was deleted"
    );
}

#[test]
fn permission_denied_is_told_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", "x");
    let path = dir.path().join("a.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        return; // root reads everything
    }
    let told = Told::by(&dir, &[dir.path().to_owned()]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    told.expect(&["a.yaml=x"]);
}

/// A folder that may be listed but not entered.
#[test]
fn what_would_not_be_read_is_not_missed_in_a_closed_folder() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "conf/a.yaml", "x");
    write(&dir, "conf/README.md", "x");
    let conf = dir.path().join("conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o444)).unwrap();
    if fs::metadata(conf.join("a.yaml")).is_ok() {
        return; // root enters everything
    }
    let found = look(&dir, std::slice::from_ref(&conf));
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(found, ["conf/a.yaml!permission denied"]);
}

#[test]
fn edit_in_place_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", "old");
    let told = Told::by(&dir, &[dir.path().to_owned()]);
    write(&dir, "a.yaml", "new");
    told.expect(&["a.yaml=new"]);
}

#[test]
fn rename_over_is_a_change_also_of_a_file_named_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", "old");
    let told = Told::by(&dir, &[dir.path().join("a.yaml")]);
    write(&dir, "a.yaml.tmp", "new");
    fs::rename(dir.path().join("a.yaml.tmp"), dir.path().join("a.yaml")).unwrap();
    told.expect(&["a.yaml=new"]);
    write(&dir, "a.yaml", "newer");
    told.expect(&["a.yaml=newer"]);
}

#[test]
fn new_file_and_deleted_file_are_changes() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", "x");
    let told = Told::by(&dir, &[dir.path().to_owned()]);
    write(&dir, "b.yaml", "y");
    told.expect(&["a.yaml=x", "b.yaml=y"]);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    told.expect(&["b.yaml=y"]);
}

#[test]
fn new_folder_is_watched_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::by(&dir, &[dir.path().to_owned()]);
    write(&dir, "team/shop/a.yaml", "x");
    told.expect(&["team/shop/a.yaml=x"]);
    write(&dir, "team/shop/a.yaml", "y");
    told.expect(&["team/shop/a.yaml=y"]);
}

#[test]
fn folder_in_place_of_another_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "conf/a.yaml", "old");
    write(&dir, "next/a.yaml", "new");
    let conf = dir.path().join("conf");
    let told = Told::by(&dir, std::slice::from_ref(&conf));
    fs::rename(&conf, dir.path().join("past")).unwrap();
    fs::rename(dir.path().join("next"), &conf).unwrap();
    told.expect(&["conf/a.yaml=new"]);
    write(&dir, "conf/a.yaml", "newer");
    told.expect(&["conf/a.yaml=newer"]);
}

#[test]
fn path_that_appears_later_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::by(&dir, &[dir.path().join("mount/conf")]);
    write(&dir, "mount/conf/a.yaml", "x");
    told.expect(&["mount/conf/a.yaml=x"]);
}

/// Kubernetes mounts a ConfigMap as `a.yaml -> ..data/a.yaml`, `..data -> ..<time>`, and updates it
/// by renaming a new `..data` over the old.
#[test]
fn config_map_mount_is_read_once_and_its_swap_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "mount/..1/a.yaml", "old");
    let mount = dir.path().join("mount");
    symlink("..1", mount.join("..data")).unwrap();
    symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
    assert_eq!(
        look(&dir, std::slice::from_ref(&mount)),
        ["mount/a.yaml=old"]
    );

    let told = Told::by(&dir, std::slice::from_ref(&mount));
    write(&dir, "mount/..2/a.yaml", "new");
    symlink("..2", mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    fs::remove_dir_all(mount.join("..1")).unwrap();
    told.expect(&["mount/a.yaml=new"]);
}

#[test]
fn swap_of_a_link_far_above_and_edit_of_the_file_behind_it_are_changes() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "v1/conf/a.yaml", "one");
    write(&dir, "v2/conf/a.yaml", "two");
    symlink("v1", dir.path().join("current")).unwrap();
    let told = Told::by(&dir, &[dir.path().join("current/conf/a.yaml")]);
    write(&dir, "v1/conf/a.yaml", "one and a half");
    told.expect(&["current/conf/a.yaml=one and a half"]);
    symlink("v2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), dir.path().join("current")).unwrap();
    told.expect(&["current/conf/a.yaml=two"]);
}

#[test]
fn change_between_the_first_look_and_the_watch_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", "old");
    let mut files = Files::new([dir.path().to_owned()]);
    files.refresh();
    write(&dir, "a.yaml", "new");
    let (sender, changes) = mpsc::channel();
    let below = dir.path().to_owned();
    let _watch = files
        .watch(move |sources| sender.send(told(sources, &below)).unwrap())
        .unwrap();
    let first = changes.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(first, ["a.yaml=new"]);
}
