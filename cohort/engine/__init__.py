"""How pairs get done: a plan, workers that do its tiles, one driver, and rows on disk.

    the plan      pairs designs nearest      which pairs, by rule or listed
                  tiles                      blocks of them, and their order
                  plan spec run_folder atlas the facts of a run, written once
                  calibrate measured         a trial of some pairs, and what it found
                  estimate simulate budgets room    what the run will take, and what does not fit
    a worker      opening workbench          what it has open
                  subjects at_hand           subjects that are ready, and what is let go
                  tile                       one tile: register, measure, commit
                  breadcrumbs watchdog memory patience    when a pair kills, hangs or does not fit
                  pair_faults                when something is raised
                  scan registered_pair measure families convergence prompts    one pair
                  beside displacements uncertainty regenerate feature_maps     beside its row
                  warm doctor                kernels, compiled ahead
    the driver    run                        from its lock to its last event
                  dispatch team              who does which tile next, and who is there
                  cluster/                   workers by Dask: here, or a given scheduler's
                  lock stop retry leftovers  alone, ended, once more, tidy
    rows          results parts seal         a part a tile, sealed
                  manifest compaction        many parts as a few files
                  verify inspection beside_checks repair run_copy    whole, or made whole
                  events progress            what happened, how far it is
    before a run  discrimination             which features single out a displacement
    after it      standing                   who stands apart from the others, by any measure

Nothing above ``run`` knows Dask; nothing here knows a method, only the contract of
:mod:`triton_reg.method`.
"""
