//! What is said of objects by what replicas answer.

use super::*;

const PATH: &str = "kubernetes:HTTPRoute/shop/web";

fn gateway() -> ObjectKey {
    ObjectKey::new("shop", "waypoint")
}

fn applies(generation: i64) -> Applies {
    Applies::from([(PATH.to_owned(), version(generation, 0))])
}

fn version(generation: i64, fingerprint: u64) -> Version {
    Version {
        generation,
        fingerprint,
    }
}

fn pod(name: &str, has: Option<i64>) -> (String, Result<Answer, String>) {
    let objects = has.map(|n| ("HTTPRoute/shop/web".to_owned(), n));
    let answer = Answer {
        gateway: Some("shop/waypoint".to_owned()),
        objects: objects.into_iter().collect(),
        ..Answer::default()
    };
    (name.to_owned(), Ok(answer))
}

/// One that has generation 2 with this fingerprint.
fn with(name: &str, fingerprint: u64) -> (String, Result<Answer, String>) {
    let (name, mut answer) = pod(name, Some(2));
    if let Ok(answer) = &mut answer {
        answer.fingerprints = [("HTTPRoute/shop/web".to_owned(), fingerprint)].into();
    }
    (name, answer)
}

fn silent(name: &str) -> (String, Result<Answer, String>) {
    (name.to_owned(), Err("it gave no answer".to_owned()))
}

/// Status and message of the condition.
fn told(programmed: &Programmed, generation: i64, there: Option<&Value>) -> Option<Value> {
    programmed.condition(PATH, version(generation, 0), &[&gateway()], there)
}

#[test]
fn it_is_programmed_when_every_ready_replica_says_so_and_not_before() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let answers = [pod("a", Some(2)), pod("b", Some(1))];
    let again = programmed.take(&gateway(), &applies(2), &answers, now);
    assert!(again.is_some());
    assert_eq!(programmed.take_due(), [""; 0], "it is given time");
    assert_eq!(told(&programmed, 2, None), None);
    let both = [pod("a", Some(2)), pod("b", Some(2))];
    assert_eq!(programmed.take(&gateway(), &applies(2), &both, now), None);
    assert_eq!(programmed.take_due(), [PATH]);
    let condition = told(&programmed, 2, None).unwrap();
    assert_eq!(
        (&condition["status"], &condition["observedGeneration"]),
        (&json!("True"), &json!(2))
    );
    // Asked again, nothing is new.
    programmed.take(&gateway(), &applies(2), &both, now);
    assert_eq!(programmed.take_due(), [""; 0]);
}

#[test]
fn a_replica_that_stays_behind_is_named_once() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let answers = [pod("a", Some(2)), pod("b", Some(1))];
    let mut due = Vec::new();
    for second in 0..20 {
        let then = now + Duration::from_secs(second);
        programmed.take(&gateway(), &applies(2), &answers, then);
        due.push(programmed.take_due().len());
    }
    assert_eq!(due.iter().sum::<usize>(), 1, "{due:?}");
    assert_eq!(due[3], 1);
    let condition = told(&programmed, 2, None).unwrap();
    assert_eq!(condition["status"], "False");
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.ends_with("generation 2: b: it has generation 1"),
        "{message}"
    );
}

#[test]
fn who_was_behind_and_is_silent_is_behind() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let mut due = 0;
    for second in 0..20 {
        let answer = match second % 2 {
            0 => pod("b", Some(1)),
            _ => silent("b"),
        };
        let then = now + Duration::from_secs(second);
        programmed.take(&gateway(), &applies(2), &[pod("a", Some(2)), answer], then);
        due += programmed.take_due().len();
    }
    assert_eq!(due, 1, "told once");
}

/// One that can not be reached for a while is no reason to write about every route there is.
#[test]
fn silence_takes_nothing_back() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let both = [pod("a", Some(2)), pod("b", Some(2))];
    programmed.take(&gateway(), &applies(2), &both, now);
    programmed.take_due();
    let there = told(&programmed, 2, None).unwrap();
    for second in 0..10 {
        let then = now + Duration::from_secs(second);
        let one = [pod("a", Some(2)), silent("b")];
        programmed.take(&gateway(), &applies(2), &one, then);
        assert_eq!(programmed.take_due(), [""; 0]);
    }
    // One that has never answered is waited for, and what stands there stays.
    for second in [11, 20] {
        let three = [pod("a", Some(2)), silent("b"), silent("c")];
        let then = now + Duration::from_secs(second);
        assert!(
            programmed
                .take(&gateway(), &applies(2), &three, then)
                .is_some()
        );
        assert_eq!(told(&programmed, 2, Some(&there)), Some(there.clone()));
    }
    // A controller that begins anew knows what stands there.
    let anew = Programmed::default();
    for second in [0, 5] {
        let one = [pod("a", Some(2)), silent("b")];
        anew.take(
            &gateway(),
            &applies(2),
            &one,
            now + Duration::from_secs(second),
        );
    }
    let said = told(&anew, 2, Some(&there)).unwrap();
    assert_eq!(said["status"], "True");
    // Of the next generation nobody has said anything.
    for second in [0, 5] {
        let one = [pod("a", Some(3)), silent("b")];
        anew.take(
            &gateway(),
            &applies(3),
            &one,
            now + Duration::from_secs(second),
        );
    }
    let said = told(&anew, 3, Some(&there)).unwrap();
    assert_eq!(said["status"], "False");
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("b: it gave no answer")
    );
}

#[test]
fn what_is_not_known_stays_as_it_is() {
    let programmed = Programmed::default();
    assert_eq!(told(&programmed, 2, None), None);
    let there = json!({"type": PROGRAMMED, "status": "True", "observedGeneration": 1});
    assert_eq!(told(&programmed, 2, Some(&there)), Some(there.clone()));
}

/// An annotation makes no generation: who has the text before it has not what is written.
#[test]
fn of_one_generation_the_text_that_is_written_counts() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let wanted = |fingerprint| Applies::from([(PATH.to_owned(), version(2, fingerprint))]);
    let said = |fingerprint, there: Option<&Value>| {
        let condition = programmed.condition(PATH, version(2, fingerprint), &[&gateway()], there);
        let text = |c: &Value, field: &str| c[field].as_str().unwrap().to_owned();
        condition.map(|c| (text(&c, "status"), text(&c, "message"), c.clone()))
    };
    programmed.take(&gateway(), &wanted(1), &[with("a", 1)], now);
    let (status, _, there) = said(1, None).unwrap();
    assert_eq!(status, "True");
    programmed.take_due();

    // The text before is no reason to say it of this one; it is asked again, and told when it lasts.
    let again = programmed.take(&gateway(), &wanted(2), &[with("a", 1)], now);
    assert!(again.is_some());
    let later = now + SAID_AFTER;
    programmed.take(&gateway(), &wanted(2), &[with("a", 1)], later);
    assert_eq!(programmed.take_due(), [PATH]);
    let (status, message, _) = said(2, Some(&there)).unwrap();
    assert_eq!(status, "False");
    assert!(
        message.ends_with("a: it has another text of generation 2"),
        "{message}"
    );
    // What is asked of a text that is not the one any more says nothing of this one.
    assert_eq!(said(3, None), None);

    // Silence keeps what was acknowledged, but of the text before nothing is kept.
    programmed.take(&gateway(), &wanted(3), &[silent("a")], later);
    programmed.take(&gateway(), &wanted(3), &[silent("a")], later + SAID_AFTER);
    assert_eq!(said(3, Some(&there)).unwrap().0, "False");
    programmed.take(&gateway(), &wanted(3), &[with("a", 3)], later + SAID_AFTER);
    assert_eq!(said(3, Some(&there)).unwrap().0, "True");
}

#[test]
fn of_two_gateways_both_have_to_have_it() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let other = ObjectKey::new("bank", "waypoint");
    let here = gateway();
    let both = [&here, &other];
    let of_both = || programmed.condition(PATH, version(2, 0), &both, None);
    programmed.take(&here, &applies(2), &[pod("a", Some(2))], now);
    assert_eq!(of_both(), None);
    let mut theirs = pod("z", Some(2));
    if let Ok(answer) = &mut theirs.1 {
        answer.gateway = Some(other.to_string());
    }
    // A pod that serves another Gateway says nothing of this one.
    programmed.take(&other, &applies(2), &[pod("z", Some(2))], now);
    assert_eq!(of_both(), None);
    programmed.take(&other, &applies(2), &[theirs], now);
    assert_eq!(of_both().unwrap()["status"], "True");
    programmed.retain(|key| *key == here);
    assert_eq!(of_both(), None);
}

#[test]
fn who_is_behind_for_long_is_asked_less_often() {
    let (programmed, now) = (Programmed::default(), Instant::now());
    let again = |seconds: u64| {
        let then = now + Duration::from_secs(seconds);
        programmed.take(&gateway(), &applies(2), &[pod("a", None)], then)
    };
    assert_eq!(again(0), Some(Duration::from_millis(500)));
    assert_eq!(again(20), Some(Duration::from_secs(5)));
    assert_eq!(again(600), Some(Duration::from_secs(10)));
}
