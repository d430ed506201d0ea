; L03: a service that comes changes the decision only to itself; one that goes and was not the winner changes nothing.
; Hence services may be registered and retired while decisions run (independence of irrelevant alternatives).
; code: routing.Engine
(set-logic ALL)
(declare-datatypes ((Key 0)) (((top) (key (j Int) (r Int)))))
(define-fun lt ((a Key) (b Key)) Bool
  (and (not (= a top)) (or (= b top) (< (j a) (j b)) (and (= (j a) (j b)) (< (r a) (r b))))))
(define-fun le ((a Key) (b Key)) Bool (or (= a b) (lt a b)))
(define-fun least ((a Key) (b Key)) Key (ite (le a b) a b))
(declare-const d Key)
(declare-const x Key)
(push 1) ; expect unsat: coming; an inadmissible service counts as top
(assert (not (and (or (= (least d x) d) (= (least d x) x)) (=> (le d x) (= (least d x) d)) (=> (= x top) (= (least d x) d)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: going
(assert (lt (least d x) x))
(assert (not (= (least d x) d)))
(check-sat)
(pop 1)
(push 1) ; expect sat: the winner going does change the decision
(assert (not (= (least d x) d)))
(check-sat)
(pop 1)
