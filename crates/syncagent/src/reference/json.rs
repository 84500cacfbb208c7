//! What each verb prints with `--json`: the table of docs/cli.md. A test of the binary
//! (`script.rs`) compares the names in it with what comes.

/// Verbs, and the shape of their document. `?` stands behind what may be absent.
pub(crate) const JSON: &[(&str, &str)] = &[
    (
        "`status`",
        "`{running, state, in_sync, pending, errors, skipped, conflicts, held, head, files, last_sync, notices, unwatched, progress, recovery_tested}`; `in_sync` is true while nothing is left to do, to decide or to know of: `sync` runs, `state` is `idle`, a pass has ended well, nothing is pending, failed, skipped, in conflict, held or unwatched; `unwatched` is null or `{paths, more, message}`: directories that are found by the regular scan alone, the first twenty, with everything below each; an empty path is the whole folder; with `--watch` one such line for every change, until `sync` ends",
    ),
    (
        "`sync --once`",
        "`{sent, fetched, removed, bytes_sent, conflicts, status, exit}`, `status` as above without `running` and `recovery_tested`; `in_sync` there is of the moment at which the pass ended",
    ),
    (
        "`sync --once --dry-run`",
        "`{dry_run, here: [step], vault: [step], conflicts, errors, skipped, held, exit}`; a step is `{action, path, from?, size?}`, its `action` one of `add`, `change`, `move`, `remove`; the rest as in `status`",
    ),
    ("`sync`", "one line of that `status` for every change"),
    (
        "`ls`",
        "`{head, entries: [{path, id, kind, size?, exec?, target?, modified, mtime_ns}], unplaced: [id]}`",
    ),
    (
        "`versions`",
        "`{path, id, versions: [{version, action, path, size, machine, time, time_ms, available}]}`, `action` one of `put`, `trash`, `purge`, `unreadable`",
    ),
    (
        "`restore`, `trash restore`",
        "`{restored: {path, from?, version, n, below, left, older}, on_disk}`; `from` is where it was until now, if that version was elsewhere; `below`, `left` and `older` are of a directory from the trash: how many things came back with it, which did not, `[{path, code, message}]`, and how many stay because something of the same name was deleted later and came back",
    ),
    (
        "`restore --dry-run`, `trash restore --dry-run`",
        "`{dry_run, restores: {path, from?, version, directories, replaces, below?, left?}}`, `below` the paths of what would come back with it",
    ),
    (
        "`trash list`",
        "`{trash: [{path, id, kind, size?, machine, deleted, deleted_ms, n}]}`",
    ),
    (
        "`conflicts list`",
        "`{conflicts: [{path, copy_path, node, copy, theirs, mine, time, time_ms}]}`; `theirs`, what has the name, and `mine`, the copy, are `{version, machine, time, time_ms}`, the newest that `versions` has of them; `time` beside them is when it became a conflict",
    ),
    (
        "`conflicts diff`",
        "`{diffs: [{path, copy_path, same, theirs, mine, ancestor, diff, not_compared?}]}`; `theirs` and `mine` are `{path, kind, size, modified, mtime_ns, target?}` of what is in the folder, and as in `conflicts list` `{version, machine, time, time_ms}` of what the vault has, `ancestor` is null or `{version, time, time_ms}`, what both started from; `diff` is null where `not_compared` says `binary`, `long` or `kind` (not both files)",
    ),
    (
        "`conflicts resolve`",
        "`{resolved: [{path, copy_path, keep, n, clashes, left?, undo}], failed: [{path, copy_path, code, message}], on_disk, exit}`; `n` is null where nothing was done, because of `clashes`, `[{theirs: {start, end}, mine: {start, end}}]` in lines from 1 and without the last, or for the reason in `left`; `undo` are the words of the commands that take it back; with `--dry-run` there is `dry_run` and no `on_disk`",
    ),
    (
        "`machines`",
        "`{machines: [{name, id, platform, this, member, state, last_seen, last_seen_ms, files, synced_n, removed, removal_signed}]}`; `name`, `id`, `member` and `removal_signed` are what the verified history says, the rest the server's word, which is all there is where `member` is false",
    ),
    (
        "`machines remove`",
        "`{removed, n}`, `n` the position of the signed removal; with `--dry-run` `{dry_run, removes}`, a row of `machines`",
    ),
    ("`fingerprint`", "`{words: [6], vault, head}`"),
    (
        "`explain`",
        "`{path, state, why, todo, id?, code?, rule?, source?, line?, waiting?}`; `state` as in the table below, `todo` null if there is nothing to do, `rule`, `source` and `line` of what is ignored, `waiting` how many things below a directory are not in sync",
    ),
    (
        "`ignore check`",
        "`{paths: [{path, ignored, rule?, source?, line?}], no_rules: [sentence]}`, the latter about lines that do not count",
    ),
    (
        "`init`",
        "`{vault, recovery_code?, recovery_file?, cloud_slot}`",
    ),
    ("`register`", "`{name, server, folder, vault, head}`"),
    ("`join`", "as of `sync --once`, for the first pass"),
    ("`export-key` / `import-key`", "`{export}` / `{vault}`"),
    (
        "`change-password`",
        "`{cloud_slot}`: whether the server's slot follows",
    ),
    (
        "`unlock`",
        "`{unlocked, kept}`, `kept` is `keyring` or `agent`",
    ),
    ("`lock`", "`{unlocked}`"),
    ("`recovery test`", "`{works}`"),
    (
        "`pause`, `resume`, `now`",
        "`{done}`; with `now --yes` also `agreed`, how many files the change has that was said yes to, 0 if none waited",
    ),
    (
        "`verify`",
        "`{chunks, read, bytes, bad: [{chunk, why, files: [{path, version, current}]}], exit}`: how many chunks there are and were read, and the bytes of content in them",
    ),
    (
        "`recover`",
        "`{dry_run, way, server_n, own_n, common_n, lost: [{n, machine, time_ms, held}], removed: [name], recovered, exit}`, `way` one of `nothing`, `give_back`, `unite`; `removed` is whose removal was lost and holds; `recovered` is `{commits, chunks, slots, versions_lost: [{path, version, current}], not_deleted: [path]}`, or null with `--dry-run`",
    ),
    (
        "`doctor`",
        "`{checks: [{check, level, code?, detail}], exit}`, `level` one of `ok`, `look`, `bad`",
    ),
    (
        "`paths`",
        "`{config, key, machine, unlocked, state, socket, agent, logs, folder}`",
    ),
    (
        "`reset`",
        "`{reset, new_machine}`; with `--dry-run` `{dry_run, forgets, new_machine}`",
    ),
    ("`server admin restored`", "`{vault, restored_until_ms}`"),
    (
        "`server admin cut`",
        "`{dry_run, vault, n, cut: [{n, machine, author, appended_ms, len}]}`",
    ),
    (
        "`server` / `server invite`",
        "`{url, data}` / `{invitation, expires_in_s}`",
    ),
    (
        "`demo`",
        "`{url, server, laptop, desktop, password}` once it runs",
    ),
];
