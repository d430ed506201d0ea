; L02: taking the least so far is at most every key seen and equals one of them (induction step).
; Hence the decision is sound (a key that was there), complete and optimal. The winner is at most the key of every
; admissible service.
; code: routing.decide_by_definition, routing.Engine
(set-logic ALL)
(declare-datatypes ((Key 0)) (((top) (key (j Int) (r Int)))))
(define-fun lt ((a Key) (b Key)) Bool
  (and (not (= a top)) (or (= b top) (< (j a) (j b)) (and (= (j a) (j b)) (< (r a) (r b))))))
(define-fun le ((a Key) (b Key)) Bool (or (= a b) (lt a b)))
(define-fun least ((a Key) (b Key)) Key (ite (le a b) a b))
(declare-const sofar Key)
(declare-const next Key)
(declare-const seen Key)
(push 1) ; expect unsat: the invariant is kept
(assert (le sofar seen))
(assert (not (and (le (least sofar next) seen) (le (least sofar next) next)
                  (or (= (least sofar next) sofar) (= (least sofar next) next)))))
(check-sat)
(pop 1)
(push 1) ; expect sat: keeping the newest of equals instead of the least loses it
(assert (le sofar seen))
(assert (not (le next seen)))
(check-sat)
(pop 1)
