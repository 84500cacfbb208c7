//! Lies about who belongs to the vault: who a name means is what the signed history says, whatever the server says.

use serde_json::{Value, json};
use syncagent_protocol::MachineId;
use syncagent_vault::op::Genesis;

use crate::court::Court;
use crate::field::liar::{Answer, Honest, Request, Said};
use crate::field::{Done, Field, Machine};

/// A vault of three: A and C speak with the server, B with the liar.
struct Three<'a> {
    court: &'a Court<'a>,
    c: Machine<'a>,
}

impl<'a> Three<'a> {
    fn new(field: &'a Field, court: &'a Court<'a>) -> Self {
        let c = field.unlocked("machine-c", &court.key, Genesis::default(), &court.url);
        c.sync_once();
        court.a.sync_once();
        court.b.sync_once();
        Self { court, c }
    }

    fn id(&self, machine: &Machine<'_>) -> String {
        self.court.credentials(machine).id().to_string()
    }

    /// What A's index says once it has all there is: names, ids, and who is removed.
    fn truth(&self) -> Vec<(String, String, bool)> {
        self.court.a.sync_once();
        let listed = rows(&self.court.a.try_run(&["machines", "--json"]));
        let mut truth: Vec<_> = { listed.iter() }
            .map(|row| {
                let text = |field: &str| row[field].as_str().unwrap().to_owned();
                (text("name"), text("id"), row["removal_signed"] == true)
            })
            .collect();
        truth.sort();
        truth
    }
}

fn rows(done: &Done) -> Vec<Value> {
    assert_eq!(done.exit, 0, "{done}");
    let answer: Value = serde_json::from_str(&done.stdout).unwrap();
    answer["machines"].as_array().unwrap().clone()
}

fn named<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    let found: Vec<_> = rows.iter().filter(|row| row["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name}: {rows:?}");
    found[0]
}

/// Another list of machines.
fn lists(
    change: impl Fn(&mut Vec<Value>) + Send + Sync + 'static,
) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    move |request, honest| {
        let answer = honest.ask(request);
        if !request.is("GET", "/machines") {
            return answer.into();
        }
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
        change(body["machines"].as_array_mut().unwrap());
        Answer::new(200, "application/json", body.to_string()).into()
    }
}

fn swap(rows: &mut [Value], field: &str, a: &str, b: &str) {
    let at = |name| rows.iter().position(|row| row["name"] == name).unwrap();
    let (a, b) = (at(a), at(b));
    let value = rows[a][field].clone();
    rows[a][field] = rows[b][field].clone();
    rows[b][field] = value;
}

const REMOVE_A: [&str; 5] = ["machines", "remove", "machine-a", "--yes", "--json"];
const REMOVE_C: [&str; 5] = ["machines", "remove", "machine-c", "--yes", "--json"];

#[test]
fn who_is_removed_is_who_the_history_calls_so_whatever_ids_the_server_gives() {
    for field_swapped in ["id", "name"] {
        let field = Field::new();
        let court = Court::new(&field, Genesis::default());
        let three = Three::new(&field, &court);
        let (a, c) = (three.id(&court.a), three.id(&three.c));
        court.liar.lie(lists(move |rows| {
            swap(rows, field_swapped, "machine-a", "machine-c")
        }));
        let listed = rows(&court.b.try_run(&["machines", "--json"]));
        assert_eq!(named(&listed, "machine-a")["id"], a.as_str());
        assert_eq!(named(&listed, "machine-c")["id"], c.as_str());
        let foreseen = court
            .b
            .try_run(&["machines", "remove", "machine-c", "--dry-run", "--json"]);
        let foreseen: Value = serde_json::from_str(&foreseen.stdout).unwrap();
        assert_eq!(foreseen["removes"]["id"], c.as_str());

        let removed = court.b.try_run(&REMOVE_C);
        assert_eq!(removed.exit, 0, "{removed}");
        // Still lied to, B shows it on the right row.
        let listed = rows(&court.b.try_run(&["machines", "--json"]));
        let signed = |name| named(&listed, name)["removal_signed"] == true;
        assert_eq!(
            (
                signed("machine-a"),
                signed("machine-b"),
                signed("machine-c")
            ),
            (false, false, true)
        );
        let again = court.b.try_run(&REMOVE_C);
        assert_eq!(again.exit, 3, "{again}");
        // So say the others, and the one that was not meant is still a member.
        let truth = three.truth();
        let gone: Vec<_> = truth.iter().filter(|(.., gone)| *gone).collect();
        assert_eq!(gone, [&("machine-c".to_owned(), c, true)], "{truth:?}");
    }
}

#[test]
fn a_machine_that_the_server_hides_is_listed_and_can_be_removed() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let three = Three::new(&field, &court);
    let c = three.id(&three.c);
    court
        .liar
        .lie(lists(|rows| rows.retain(|row| row["name"] != "machine-c")));
    let listed = rows(&court.b.try_run(&["machines", "--json"]));
    let row = named(&listed, "machine-c");
    assert_eq!(
        (&row["id"], &row["member"]),
        (&c.as_str().into(), &true.into())
    );
    let removed = court.b.try_run(&REMOVE_C);
    assert_eq!(removed.exit, 0, "{removed}");
    assert!(three.truth().contains(&("machine-c".to_owned(), c, true)));
}

#[test]
fn a_machine_that_only_the_server_names_is_shown_as_such_and_is_no_member_by_name() {
    let field = Field::new();
    let court = Court::new(&field, Genesis::default());
    let three = Three::new(&field, &court);
    let a = three.id(&court.a);
    let invented = MachineId([7; 16]).to_string();
    for name in ["phone", "machine-a"] {
        let id = invented.clone();
        court.liar.lie(lists(move |rows| {
            let mut row = rows[0].clone();
            row["name"] = json!(name);
            row["id"] = json!(id);
            rows.insert(0, row);
        }));
        let listed = rows(&court.b.try_run(&["machines", "--json"]));
        let row = listed.iter().find(|row| row["id"] == invented.as_str());
        let row = row.unwrap();
        assert_eq!(
            (&row["name"], &row["member"]),
            (&name.into(), &false.into())
        );
        let text = court.b.try_run(&["machines"]);
        assert!(text.stdout.contains("only the server names it"), "{text}");
    }
    // Its name means nobody, or the member that is called so.
    let nobody = court.b.try_run(&["machines", "remove", "phone", "--yes"]);
    assert_eq!(nobody.exit, 3, "{nobody}");
    let removed = court.b.try_run(&REMOVE_A);
    assert_eq!(removed.exit, 0, "{removed}");
    court.liar.tell_the_truth();
    let listed = rows(&court.b.try_run(&["machines", "--json"]));
    assert_eq!(
        (
            &named(&listed, "machine-a")["removal_signed"],
            &named(&listed, "machine-a")["id"]
        ),
        (&true.into(), &a.as_str().into())
    );
    assert_eq!(named(&listed, "machine-c")["removal_signed"], false);
    three.c.sync_once();
}
