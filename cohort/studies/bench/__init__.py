"""What this machine does: methods, kernels and whole runs, measured by one protocol.

    settings      what is asked, and the cells it gives: method x shape x device x batch
    timing        median and quartiles, wall and processor time, a device that is waited for
    machine       name, versions, memory, and the rates that floors are made of
    card          what a GPU says of its clocks and power; nothing is set
    population    the pairs: synthetic heads with truth at each shape, or a store's own
    cell          one cell, measured in this process
    peers         the same of other tools, which run in an interpreter of their own
    peers_tools   the script that runs there
    apart         the same in a process of its own, so that peaks of memory do not mix
    ended         how a process ended that failed
    floors        bytes and operations that each kernel needs at least
    kernels       the kernels of each method on one pair's sizes
    rooflines     these kernels over their floors
    end_to_end    a run of the engine for each number of workers, with what its time went into
    forecast      what the study will take, and which cells would not fit into memory
    kept          what is measured, a file each
    tables        CSV files and one document of all that is kept
    study         all of it, in order

Every measurement is a file below ``OUT/done``; what succeeded is not done again.
"""
