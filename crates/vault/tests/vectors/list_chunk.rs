use syncagent_protocol::pack::ChunkView;
use syncagent_vault::chunk::{Entry, Scope, open_list, seal_list};

use crate::chunk::{entry, same};
use crate::harness::{Fields, hex};

pub(crate) use crate::chunk::{code, refuse};

pub(crate) fn case(c: &Fields<'_>) {
    assert_eq!(c.number("kind"), 1);
    let (keys, scope) = (c.keys(), Scope(c.array("scope")));
    let entries: Vec<Entry> = c.objects("entries").iter().map(entry).collect();
    let sealed = seal_list(&keys, scope, &entries).unwrap();
    assert!(same(&sealed.entry, &entry(c)));
    assert_eq!(hex(&sealed.blob), c.text("blob"));

    let opened = open_list(&keys, scope, &entry(c), &sealed.blob).ok().unwrap();
    assert_eq!(opened.len(), entries.len());
    assert!(opened.iter().zip(&entries).all(|(a, b)| same(a, b)));
    let children = ChunkView::parse(&sealed.blob).unwrap().children();
    assert!(children.eq(entries.iter().map(|entry| entry.id)));
}
